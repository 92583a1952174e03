"""Pairs of hits to look at: what is ordered how, what is averaged, what is left out."""

import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from PIL import Image

from diffdask.io.results_store import KIND, replace_group
from diffdask.kernels.agreement import area_under_roc
from diffdask.pair_pictures import (
    average_cells,
    chance_area,
    choose_evenly,
    draw_pairs,
    find_telling,
    read_pairs,
    summarise_pairs,
)
from diffdask.variables import wrap

COUNT = 60


def agreement_of(count: int = COUNT, diffuse: int = 12, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, n) noise in which hits agree that are diffuse, and (n,) which those are."""
    random = np.random.default_rng(seed)
    is_diffuse = np.isin(np.arange(count), random.choice(count, diffuse, replace=False))
    noise = 0.05 * random.normal(size=(count, count))
    agreement = np.triu(noise + 0.4 * np.outer(is_diffuse, is_diffuse), 1)
    return agreement + agreement.T, is_diffuse


def summarise(agreement: np.ndarray, score: np.ndarray, similarity: str = "common-arc"):
    count = len(agreement)
    return summarise_pairs(similarity, count, 10 * np.arange(count), agreement, score)


def labels_of(is_diffuse: np.ndarray) -> np.ndarray:
    return np.where(is_diffuse, "diffuse", "non-diffuse").astype(object)


def decode(uri: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    return np.asarray(image.convert("RGB")).astype(float)


def test_the_matrix_is_ordered_by_score_and_hits_without_one_come_last() -> None:
    agreement, _ = agreement_of()
    score = np.random.default_rng(1).normal(size=COUNT)
    score[[3, 8]] = np.nan
    found = summarise(agreement, score)
    order = found.hit_frame // 10
    assert found.is_by_score
    assert (np.diff(score[order[:-2]]) <= 0).all()
    assert order[-2:].tolist() == [3, 8]
    for row, column in ((0, 1), (5, 40), (58, 2)):
        assert found.cells[row, column] == agreement[order[row], order[column]]


def test_the_order_of_the_hits_in_the_store_does_not_matter() -> None:
    agreement, _ = agreement_of()
    score, shuffled = np.random.default_rng(1).normal(size=COUNT), np.random.default_rng(2).permutation(COUNT)
    one = summarise(agreement, score)
    other = summarise(agreement[np.ix_(shuffled, shuffled)], score[shuffled])
    np.testing.assert_array_equal(one.cells, other.cells)
    np.testing.assert_allclose(one.eigenvalues, other.eigenvalues, atol=1e-9)


def test_without_scores_the_leading_coordinate_gives_the_order() -> None:
    agreement, is_diffuse = agreement_of()
    found = summarise(agreement, np.full(COUNT, np.nan))
    assert not found.is_by_score
    assert (np.diff(found.coordinates[:, 0]) <= 0).all()
    first = is_diffuse[found.hit_frame // 10]
    assert first[:12].all() or first[-12:].all()


def test_coordinates_stay_with_their_hits() -> None:
    agreement, is_diffuse = agreement_of()
    found = summarise(agreement, np.random.default_rng(1).normal(size=COUNT))
    apart = area_under_roc(*(found.coordinates[is_diffuse[found.hit_frame // 10] == kind, 0] for kind in (True, False)))
    assert max(apart, 1 - apart) == 1.0


def test_what_a_hit_says_of_itself_is_not_in_the_picture() -> None:
    agreement, _ = agreement_of()
    score = np.arange(COUNT, dtype=float)
    loud = agreement + 100 * np.eye(COUNT)
    np.testing.assert_array_equal(summarise(agreement, score).cells, summarise(loud - 50 * np.eye(COUNT), score).cells)


def test_hits_that_nothing_can_be_compared_with_are_left_out_and_counted() -> None:
    agreement, _ = agreement_of()
    agreement[[4, 17]] = agreement[:, [4, 17]] = np.nan
    agreement[4, 4] = 1.0
    found = summarise(agreement, np.arange(COUNT, dtype=float))
    assert found.left_out == 2
    assert len(found.hit_frame) == len(found.coordinates) == len(found.cells) == COUNT - 2
    assert not {40, 170} & set(found.hit_frame.tolist())
    assert not found.is_subset


@pytest.mark.parametrize(("count", "most"), [(1, 1), (7, 3), (12, 4), (10, 20), (41, 40)])
def test_a_cell_is_the_mean_of_what_is_known_in_its_block(count: int, most: int) -> None:
    random = np.random.default_rng(count)
    matrix = np.where(random.random((count, count)) < 0.3, np.nan, random.normal(size=(count, count)))
    cells = average_cells(matrix, most=most)
    size = min(count, most)
    assert cells.shape == (size, size)
    edges = [number * count // size for number in range(size + 1)]
    for row in range(size):
        for column in range(size):
            block = matrix[edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
            assert block.size
            known = block[np.isfinite(block)]
            np.testing.assert_allclose(cells[row, column], known.mean() if known.size else np.nan, rtol=1e-6)


def test_a_large_matrix_has_at_most_400_cells_a_side() -> None:
    count = 450
    found = summarise(np.zeros((count, count), np.float32), np.arange(count, dtype=float))
    assert found.cells.shape == (400, 400)


def test_of_very_many_hits_some_are_looked_at_spread_evenly() -> None:
    assert choose_evenly(5000).tolist() == list(range(5000))
    some = choose_evenly(24_500)
    assert some.size == 2000
    assert set(np.diff(some)) == {12, 13}
    assert 0 <= some[0] < some[-1] < 24_500


def test_the_coordinates_that_tell_most_are_found_whatever_their_sign() -> None:
    random = np.random.default_rng(0)
    coordinates = random.normal(size=(80, 9))
    is_diffuse = random.random(80) < 0.3
    coordinates[:, 6] -= 3 * is_diffuse
    coordinates[:, 2] += 1.5 * is_diffuse
    for sign in (1, -1):
        telling, areas = find_telling(sign * coordinates, labels_of(is_diffuse))
        assert telling == [6, 2]
        assert areas[0] > areas[1] > 0.7


@pytest.mark.parametrize("label", ["unlabelled", "diffuse", "blank"])
def test_without_labels_of_both_kinds_the_leading_two_are_shown(label: str) -> None:
    coordinates = np.random.default_rng(0).normal(size=(10, 4))
    assert find_telling(coordinates, np.full(10, label, dtype=object)) == ([0, 1], [])


def test_the_best_of_meaningless_coordinates_exceeds_the_area_of_chance_once_in_twenty() -> None:
    random = np.random.default_rng(5)
    label = labels_of(np.arange(50) < 20)
    limit = chance_area(20, 30, 8)
    times = [find_telling(random.normal(size=(50, 8)), label)[1][0] > limit for _ in range(600)]
    assert 0.02 < np.mean(times) < 0.09


def test_hits_that_agree_make_a_red_block_top_left() -> None:
    agreement, is_diffuse = agreement_of()
    found = summarise(agreement, is_diffuse + 0.1 * np.random.default_rng(0).random(COUNT))
    drawn = draw_pairs(found, labels_of(is_diffuse[found.hit_frame // 10]), np.zeros(COUNT, bool))
    image = decode(drawn["matrix"])
    assert image.shape == (COUNT, COUNT, 3)
    red = image[..., 0] - image[..., 2]
    is_other = ~np.eye(12, dtype=bool)
    assert red[:12, :12][is_other].min() > 50
    assert abs(red[12:, 12:].mean()) < 20
    assert drawn["centre"] == 0
    assert drawn["telling"][0] == 1
    assert drawn["areas"][0] == 1.0 > drawn["chance"]


def test_distances_are_coloured_about_their_median() -> None:
    agreement, _ = agreement_of()
    found = summarise(agreement - 1.0, np.arange(COUNT, dtype=float), "euclidean")
    drawn = draw_pairs(found, np.full(COUNT, "unlabelled", dtype=object), np.zeros(COUNT, bool))
    assert drawn["centre"] == pytest.approx(-1.0, abs=0.02)
    assert drawn["limit"] < 0.3
    assert drawn["areas"] == []


def test_a_matrix_in_many_parts_has_no_map_and_says_why() -> None:
    agreement = np.where(np.arange(80)[:, None] // 2 == np.arange(80) // 2, 0.1, np.nan)
    found = summarise(agreement, np.arange(80, dtype=float))
    assert "40 parts" in found.failure
    drawn = draw_pairs(found, np.full(80, "unlabelled", dtype=object), np.zeros(80, bool))
    assert drawn["map"] is None
    assert drawn["matrix"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_hits_have_no_map_and_say_so(count: int) -> None:
    found = summarise(np.full((count, count), 0.1), np.full(count, np.nan))
    assert "at least 4" in found.failure
    drawn = draw_pairs(found, np.full(len(found.hit_frame), "unlabelled", dtype=object), np.zeros(count, bool))
    assert (drawn["matrix"] is None) == (count < 2)


# from a store ------------------------------------------------------------------------------------


def make_store(folder: Path, frames: np.ndarray, compared: np.ndarray | None) -> Path:
    """Results whose hits are ``frames``, and which compared the frames ``compared``."""
    path = folder / "results.zarr"
    zarr.open_group(str(path), mode="w-", zarr_format=3, attributes={"kind": KIND})
    replace_group(path, "features", wrap(hit_frame=frames), {"parameters": {}})
    if compared is not None:
        pairs = wrap(hit_frame=compared, pair_agreement=agreement_of(compared.size)[0].astype(np.float32))
        replace_group(path, "correlation", pairs, {"parameters": {}})
    return path


def test_what_was_compared_is_read_with_the_scores_of_its_frames(tmp_path: Path) -> None:
    frames = 3 + 2 * np.arange(COUNT)
    score = pd.Series(np.random.default_rng(0).normal(size=200))
    (found,) = read_pairs(make_store(tmp_path, frames, frames), score)
    assert found.similarity == "correlation"
    assert found.hit_count == COUNT
    assert (np.diff(score[found.hit_frame]) <= 0).all()
    assert sorted(found.hit_frame) == frames.tolist()


def test_nothing_compared_or_other_hits_compared_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert read_pairs(make_store(tmp_path / "none", np.arange(COUNT), None), None) == []
    assert read_pairs(make_store(tmp_path, np.arange(COUNT), 1 + np.arange(COUNT)), None) == []
