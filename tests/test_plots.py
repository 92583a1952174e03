"""Plots: scores on a scale that suits them."""

import base64

import numpy as np
import pytest

from diffdask.plots import bin_scores, plot_coordinates, plot_eigenvalues, plot_scores

RANDOM = np.random.default_rng(0)
TAIL = np.concatenate([RANDOM.normal(size=500), 4 + 30 * RANDOM.random(30), [9e3, np.nan]])


def decode(uri: str) -> str:
    kind, content = uri.split(",")
    assert kind == "data:image/svg+xml;base64"
    return base64.b64decode(content).decode()


@pytest.mark.parametrize("threshold", [0.5, 3.7, 4.0])
@pytest.mark.parametrize("score", [TAIL, TAIL[:3], np.full(5, 2.0), np.full(4, np.nan), -1e6 * np.ones(2)])
def test_no_bar_of_a_histogram_lies_on_both_sides_of_the_threshold(threshold: float, score: np.ndarray) -> None:
    edges = bin_scores(score, threshold)
    assert threshold in edges
    assert 2 < edges.size < 45
    assert (np.diff(edges) > 0).all()


def test_bins_reach_over_the_bulk_of_scores_but_not_to_the_last_of_a_long_tail() -> None:
    edges = bin_scores(TAIL, 4.0)
    assert edges[0] <= np.nanmin(TAIL)
    assert 34 < edges[-1] < 50


def test_scores_in_units_of_chance_say_so_and_how_many_are_beyond_the_ends() -> None:
    label = np.full(TAIL.size, "unlabelled", dtype=object)
    drawn = decode(plot_scores(TAIL, label, 4.0, is_probability=False))
    assert "score: units of chance (1 beyond the ends)" in drawn
    assert f"unlabelled ({TAIL.size - 1})" in drawn


def test_probabilities_keep_their_scale_from_0_to_1() -> None:
    drawn = decode(plot_scores(RANDOM.random(50), np.full(50, "diffuse", dtype=object), 0.5))
    assert "score: probability that the hit is diffuse" in drawn
    assert "beyond" not in drawn


def test_coordinates_and_eigenvalues_say_what_is_shown() -> None:
    label = np.array(["diffuse", "non-diffuse", "unlabelled", "diffuse"], dtype=object)
    x, y = RANDOM.normal(size=(2, 4))
    drawn = decode(
        plot_coordinates(x, y, label, np.array([True, False, False, False]), ["coordinate 2", "coordinate 5"])
    )
    assert all(text in drawn for text in ("coordinate 2", "coordinate 5", "non-diffuse", "unlabelled", "top 1"))
    assert "shown beside" in decode(plot_eigenvalues(np.array([0.9, 0.5, -0.1]), [0, 2]))
