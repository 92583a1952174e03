"""Orientations in the report: read as they were found, and only of the map there is."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from diffdask.io.results_store import KIND, replace_group
from diffdask.models.chance import standardise_scores
from diffdask.orientation_pictures import draw_orientations, read_orientations, read_structure
from diffdask.variables import wrap

ATTRIBUTES = {
    "parameters": {"map": {"seed": 0}, "significance": 6.0},
    "judged_count": 2,
    "right_share": 1.0,
    "right_angle": 0.4,
}

SOURCES = ["not a hit", "indexing", "map", "none", "indexing", "not a hit", "map"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.zarr"
    zarr.open_group(str(path), mode="w-", zarr_format=3, attributes={"kind": KIND})
    return path


def write_found(path: Path, map_seed: int = 0) -> None:
    found = wrap(
        frame_search=np.array([np.nan, 20.0, 12.0, 0.1, -0.3, np.nan, 7.0]),
        frame_search_angle=np.array([np.nan, 0.4, 55.0, np.nan, 80.0, np.nan, np.nan]),
        frame_is_misindexed=np.array(SOURCES) == "map",
        frame_orientation_source=np.array(SOURCES, dtype=object),
    )
    replace_group(path, "orientations", found, ATTRIBUTES)
    replace_group(path, "consistency", wrap(hit_frame=np.array([1, 2, 3, 4, 6])), {"parameters": {"seed": map_seed}})


def test_hits_are_read_and_other_frames_are_not(results: Path) -> None:
    write_found(results)
    found = read_orientations(results)
    assert found is not None
    assert found.hit_frame.tolist() == [1, 2, 3, 4, 6]
    assert found.source.tolist() == [name for name in SOURCES if name != "not a hit"]
    assert found.search.tolist() == [20.0, 12.0, 0.1, -0.3, 7.0]
    assert found.is_misindexed.tolist() == [False, True, False, False, True]
    assert (found.significance, found.judged_count, found.right_share, found.right_angle) == (6.0, 2, 1.0, 0.4)


def test_without_a_search_or_of_another_map_there_is_nothing_to_show(results: Path) -> None:
    assert read_orientations(results) is None
    write_found(results, map_seed=1)
    assert read_orientations(results) is None


def test_orientations_are_counted_by_where_they_come_from(results: Path) -> None:
    write_found(results)
    found = read_orientations(results)
    assert found is not None
    drawn = draw_orientations(found, np.array([True, True, False, False, True]))
    assert list(drawn["sources"].values()) == [2, 2, 1]
    assert drawn["misindexed"] == 2
    assert all(drawn[name].startswith("data:image/svg+xml") for name in ("angle", "search"))
    assert drawn == draw_orientations(found, np.array([True, True, False, False, True]))


def test_structure_is_that_of_rank_by_frame_number(results: Path) -> None:
    assert read_structure(results) is None
    structure = np.array([0.1, 0.2, 0.15, 3.0, 0.12])
    replace_group(results, "features", wrap(hit_frame=np.array([1, 2, 3, 4, 6]), hit_structure=structure), {})
    found = read_structure(results)
    assert found is not None
    assert found.index.tolist() == [1, 2, 3, 4, 6]
    np.testing.assert_array_equal(found.to_numpy(), standardise_scores(structure))


def test_features_without_structure_have_none(results: Path) -> None:
    replace_group(results, "features", wrap(hit_frame=np.array([1, 2])), {})
    assert read_structure(results) is None
