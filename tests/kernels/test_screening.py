"""A frame's row in the catalogue, from the sums over its cells, against plain NumPy."""

import numpy as np
import pytest

from diffdask.kernels.polar import average_cells, find_diffuse_excess
from diffdask.kernels.screening import COLUMNS, summarise_frame

RINGS, AZIMUTHS = 60, 24


@pytest.fixture
def sums():
    """Sums over cells of a noisy frame: first, second, count, mean; ring 5 has no estimate."""
    random = np.random.default_rng(0)
    values = random.poisson(6.0, size=(RINGS, AZIMUTHS, 50)) - 6.0
    count = np.full((RINGS, AZIMUTHS), 50)
    first, second = values.sum(axis=2), (values**2).sum(axis=2)
    mean = np.linspace(8, 4, RINGS)
    second[:20] += 40 * np.arange(20)[:, None]
    first[:20] *= 2
    mean[5], first[5], second[5], count[5] = np.nan, 0, 0, 0
    return first, second, count, mean


def summarise(sums, peaks=(), peak_count=None, rings_per_bin=1, window=None):
    rows = np.zeros((len(peaks), 6))
    rows[:, 3] = peaks
    anisotropy, summary = np.empty(RINGS), np.empty(len(COLUMNS))
    window = np.ones(RINGS, bool) if window is None else window
    peak_count = len(peaks) if peak_count is None else peak_count
    summarise_frame(*sums, rows, peak_count, rings_per_bin, window, anisotropy, summary)
    return dict(zip(COLUMNS, summary, strict=True)), anisotropy


def test_background_and_anisotropy_are_medians_over_the_rings_of_the_window(sums):
    window = np.arange(RINGS) < 20
    row, anisotropy = summarise(sums, window=window)
    assert row["background"] == np.nanmedian(sums[3][:20])
    assert row["anisotropy"] == np.nanmedian(anisotropy[:20])
    assert row["anisotropy"] != summarise(sums)[0]["anisotropy"]
    assert row["good_rings"] == RINGS - 1


@pytest.mark.parametrize("rings_per_bin", [1, 3])
def test_the_diffuse_excess_is_that_of_coarse_rings(sums, rings_per_bin):
    residual, noise = np.empty((2, RINGS // rings_per_bin, AZIMUTHS), np.float32)
    average_cells(*sums[:3], rings_per_bin, 10, residual, noise)
    assert summarise(sums, rings_per_bin=rings_per_bin)[0]["diffuse_excess"] == find_diffuse_excess(residual, noise)


def test_all_peaks_are_counted_and_the_listed_ones_averaged(sums):
    row, _ = summarise(sums, [10.0, 30.0], peak_count=700)
    assert (row["peak_count"], row["peak_intensity"]) == (700, 20)
    row, _ = summarise(sums, [10.0, 30.0, 99.0], peak_count=2)
    assert (row["peak_count"], row["peak_intensity"]) == (2, 20)
    row, _ = summarise(sums)
    assert row["peak_count"] == 0
    assert np.isnan(row["peak_intensity"])


def test_a_frame_without_an_estimate_has_nothing_to_say():
    nothing = np.zeros((RINGS, AZIMUTHS)), np.zeros((RINGS, AZIMUTHS)), np.zeros((RINGS, AZIMUTHS), int)
    row, anisotropy = summarise((*nothing, np.full(RINGS, np.nan)))
    assert (row["good_rings"], row["peak_count"]) == (0, 0)
    for name in ("background", "anisotropy", "diffuse_excess", "peak_intensity"):
        assert np.isnan(row[name]), name
    assert np.isnan(anisotropy).all()
