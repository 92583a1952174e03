"""Four real stills of staphylococcal nuclease, beside what lunus made of such stills: benchmarks/real_frames.py."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fabio", reason="needs fabio to read SMV frames: pip install fabio")

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def folder(shared):
    if not (shared / "snase").is_dir():
        pytest.skip("needs the real stills beside the checkout (../shared/data/snase), which are absent")
    return shared / "snase"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        module = importlib.import_module("real_frames")
        patch.setattr(module, "_COMMON_TURNS", 20)
        yield module
    for name in ("real_frames", "snase"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def frames(script, folder):
    return script.read_frames(folder)


@pytest.fixture(scope="module")
def lattice(script, folder):
    return script.read_lattice(folder / "snc_diffuse_reference.lat")


@pytest.fixture(scope="module")
def held(script, frames):
    wavelength = np.full(len(frames.frame), 0.908)
    return script.HeldOut(script.find_residual(frames), frames.orientation.values, wavelength)


def test_bragg_spots_of_each_still_lie_on_whole_indices(script, frames, folder):
    assert (script.find_bragg_share(frames) > 0.9).all()
    listed = script.find_bragg_share(script.read_frames(folder, is_as_listed=True))
    assert listed[0] > 0.9
    # the lists turn the later ones the wrong way
    assert (listed[1:] < 0.3).all()


def test_the_lattice_is_centred_and_has_the_symmetry_of_the_crystal(script, lattice):
    index, value = lattice
    assert len(index) == 117_010
    cube = np.full((101,) * 3, np.nan)
    cube[tuple((index + 50).T)] = value
    agreement = []
    for mate in (-index, index * (-1, -1, 1), index * (1, -1, -1)):  # the last is a mate in 4/mmm only
        other = cube[tuple((mate + 50).T)]
        # about 3 angstrom, where the isotropic part changes little
        radius = np.linalg.norm(index / (48.4, 48.4, 63.3), axis=1)
        both = np.isfinite(other) & (np.abs(radius - 0.29) < 0.01)
        agreement.append(np.corrcoef(value[both], other[both])[0, 1])
    assert min(agreement[:2]) > 0.8
    assert agreement[2] < 0.4


def test_merged_stills_agree_with_the_lattice_and_with_no_other_setting_of_it(script, frames, folder):
    listed = script.read_frames(folder, is_as_listed=True).orientation.values
    plain, clean, smooth, foreign, *wrong = [found for _, found in script.compare_with_lattice(folder, frames, listed)]
    assert len(clean) == len(script.SHELLS)
    assert plain[0] > 0.5
    assert clean[0] > 0.75
    assert smooth[0] > 0.8
    assert foreign[0] > 0.7  # of other stills only
    assert min(clean[1:]) > 0.65
    assert wrong[0][0] < clean[0] - 0.1  # orientations as listed
    assert max(abs(found[0]) for found in wrong[1:]) < 0.15


def test_each_still_agrees_with_the_map_of_the_others_at_its_own_orientation_only(script, held):
    for row in script.measure_consistency(held, shuffles=200):
        assert row["significance"] > 10.0
        assert row["p"] < 0.01
        assert row["score"] > row["turned_largest"]


def test_each_still_agrees_with_itself_where_its_symmetry_says(script, held):
    for row in script.measure_mates(held, shuffles=100):
        assert row["agreement"] > 0.6
        assert row["significance"] > 4.0
        assert row["p"] < 0.02


def test_the_search_finds_the_orientation_of_each_still_in_the_map_of_the_others(script, held):
    for row in script.measure_search(held, count=30_000, twists=10):
        assert row["angle"] < 2.0
        assert row["score"] > 2.0 * row["largest"]


def test_and_in_the_lattice_of_other_stills(script, held, lattice):
    for row in script.measure_in_lattice(held, *lattice, shuffles=100, count=30_000, twists=10):
        assert row["significance"] > 10.0
        assert row["search_angle"] < 2.0
        assert row["search_score"] > 2.0 * row["search_largest"]


def test_a_still_has_no_say_in_the_map_it_is_held_against(script, held):
    before = held.merge_others(1)
    kept = held.values[1].copy()
    held.values[1] = np.nan
    after = held.merge_others(1)
    held.values[1] = kept
    np.testing.assert_array_equal(after, before)
    assert held.merge_others(0)[1].sum() > 10_000
