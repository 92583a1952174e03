import numpy as np
import pytest

from diffdask.steps.peaks import LISTED_PEAKS, find_peaks
from diffdask.steps.screening import screen_frames, screening_parameters

PLAIN = {
    "common_mode": "none", "clip_low": 5.0, "clip_high": 5.0, "clip_passes": 3, "snr": 6.0, "threshold": 5.0,
    "min_pixels": 2, "max_pixels": 30, "radius": 4,
}  # fmt: skip
HOW = screening_parameters(**PLAIN)
COLUMNS = ("peak_panel", "peak_ss", "peak_fs", "peak_intensity", "peak_snr")


def find(ds, **options):
    return find_peaks(ds, how=HOW, **options)


@pytest.fixture(scope="module")
def ds(small):
    return small.dataset(small.frames(small.expected()))


def listed(made, frame):
    """(peak, column) of one frame."""
    count = int(made.hit_peak_count[frame])
    return np.stack([made[name].values[frame, :count] for name in COLUMNS], axis=1)


def test_find_peaks_is_a_step(small, ds):
    needed = ["adu", "photon_energy", "frame_setting", "pixel_ring", "pixel_azimuth", "panel_corner"]
    small.check_step(find, ds, needed)


def test_what_is_said_of_a_frame_does_not_depend_on_the_others(small):
    small.check_frames_alone(find)


def test_as_many_peaks_are_listed_as_the_screen_counts(ds):
    made = find(ds)
    screened = screen_frames(ds, **PLAIN)
    np.testing.assert_array_equal(made.hit_peak_count, screened.frame_peak_count)
    means = [listed(made, frame)[:, 3].mean() for frame in range(ds.sizes["frame"])]
    np.testing.assert_allclose(means, screened.frame_peak_intensity, rtol=1e-6)
    assert (made.hit_peak_count > 10).all()


def test_past_the_last_peak_there_is_no_panel_and_no_number(ds):
    made = find(ds)
    is_past = np.arange(LISTED_PEAKS) >= made.hit_peak_count.values[:, None]
    np.testing.assert_array_equal(made.peak_panel.values == -1, is_past)
    for name in COLUMNS[1:]:
        np.testing.assert_array_equal(np.isnan(made[name]), is_past)


def planted(small, photons, count=6):
    """Frames with spots at known places, far from each other and from the edges: (panel, ss, fs), pixel centres 0.5."""
    random = np.random.default_rng(1)
    grid = [(p, s, f) for p in range(4) for s in range(8, 56, 16) for f in range(8, 62, 16)]
    truth = np.array([(p, s + random.uniform(-1, 1), f + random.uniform(-1, 1)) for p, s, f in grid])
    rings = small.dataset(np.zeros((1, 4, *small.shape), np.int16)).pixel_ring.values[0]
    ring = rings[tuple(truth.astype(int).T)]
    truth = truth[np.bincount(rings[rings >= 0])[ring] > 300]  # a few peaks would be all of a smaller ring
    seen = [(rings[int(p), int(s) - 2 : int(s) + 3, int(f) - 2 : int(f) + 3] >= 0).all() for p, s, f in truth]
    truth = truth[seen]
    ss, fs = np.indices(small.shape) + 0.5
    expected = small.expected().copy()
    for p, s, f in truth:
        expected[int(p)] += photons * np.exp(-0.5 * ((ss - s) ** 2 + (fs - f) ** 2) / 0.64) / (2 * np.pi * 0.64)
    dataset = small.dataset(small.frames(expected, count, spots=0))
    return dataset, truth


@pytest.mark.parametrize(("photons", "recall"), [(100, 0.4), (300, 0.99)])
def test_planted_peaks_are_found_where_they_are_and_little_else(small, photons, recall):
    dataset, truth = planted(small, photons)
    made = find(dataset)
    hit, false, off = 0, 0, []
    assert len(truth) > 30
    for frame in range(dataset.sizes["frame"]):
        found = listed(made, frame)
        far = np.abs(found[:, None, 1:3] - truth[None, :, 1:]).max(axis=2)
        far[found[:, None, 0] != truth[None, :, 0]] = np.inf
        hit += (far.min(axis=0) < 1).sum()
        off += [found[n, 1:3] - truth[np.argmin(far[n]), 1:] for n in np.flatnonzero(far.min(axis=1) < 1)]
        false += int((far.min(axis=1) > 3).sum())
    assert hit > recall * len(truth) * dataset.sizes["frame"]
    assert false <= 1
    assert np.abs(np.mean(off, axis=0)).max() < 0.05, "the centre of the first pixel is 0.5"
    assert np.sqrt(np.mean(np.square(off))) < 0.35


def test_without_peaks_no_peak_is_found(small):
    dataset = small.dataset(small.frames(small.expected(), spots=0))
    assert find(dataset).hit_peak_count.sum() == 0


def test_one_pixel_alone_is_at_its_centre(small):
    adu = small.frames(small.expected(), count=1, spots=0)
    dataset = small.dataset(adu)
    panel, ss, fs = np.argwhere(dataset.pixel_ring.values[0] == 20)[10]
    dataset.adu.values[0, panel, ss, fs] = 4000
    made = find_peaks(dataset, how=HOW._replace(min_pixels=1))
    ((p, s, f, intensity, snr),) = listed(made, 0)
    assert (p, s, f) == (panel, ss + 0.5, fs + 0.5)
    assert intensity == pytest.approx(1000 * dataset.pixel_correction.values[0, panel, ss, fs], rel=0.02)
    assert snr > 50


def test_a_frame_without_photon_energy_has_no_peaks(small):
    geometry = small.geometry()
    geometry.adu_per_ev[:] = 4.0 / small.energy
    columns = small.columns(2, geometry)
    dataset = small.dataset(small.frames(small.expected(), count=2), columns=columns)
    dataset.photon_energy.values[1] = np.nan
    made = find(dataset)
    assert made.hit_peak_count.values[0] > 10
    assert made.hit_peak_count.values[1] == 0


def test_of_more_peaks_than_are_listed_the_first_are_and_all_are_counted(small, monkeypatch):
    from diffdask.steps import peaks

    dataset = small.dataset(small.frames(small.expected(), count=2))
    everything = find(dataset)
    monkeypatch.setattr(peaks, "LISTED_PEAKS", 5)
    few = find(dataset)
    np.testing.assert_array_equal(few.hit_peak_count, everything.hit_peak_count)
    for name in COLUMNS:
        np.testing.assert_array_equal(few[name], everything[name].values[:, :5])
