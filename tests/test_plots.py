"""Plots: scores on a scale that suits them."""

import base64

import numpy as np
import pytest

from diffdask.plots import (
    bin_scores,
    plot_coordinates,
    plot_eigenvalues,
    plot_groups,
    plot_half_maps,
    plot_scores,
    plot_structure,
)

RANDOM = np.random.default_rng(0)
TAIL = np.concatenate([RANDOM.normal(size=500), 4 + 30 * RANDOM.random(30), [9e3, np.nan]])


def decode(uri: str) -> str:
    kind, content = uri.split(",")
    assert kind == "data:image/svg+xml;base64"
    return base64.b64decode(content).decode()


@pytest.mark.parametrize("threshold", [0.0, 0.5, 3.7, 4.0])
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
    drawn = decode(plot_scores(TAIL, label, 4.0, is_probability=False, unit="units of chance"))
    assert "score: units of chance (1 beyond the ends)" in drawn
    assert f"unlabelled ({TAIL.size - 1})" in drawn


def test_probabilities_keep_their_scale_from_0_to_1() -> None:
    drawn = decode(plot_scores(RANDOM.random(50), np.full(50, "diffuse", dtype=object), 0.5))
    assert "score: probability that the hit is diffuse" in drawn
    assert "beyond" not in drawn


def test_the_structure_plot_crosses_the_misindexed_and_names_its_axes() -> None:
    structure, score = RANDOM.normal(size=(2, 5))
    group = np.array(["predicted diffuse"] * 2 + ["predicted non-diffuse"] * 3, dtype=object)
    crossed, nothing = np.arange(5) == 1, np.zeros(5, bool)
    drawn = decode(plot_structure(structure, score, group, crossed, 0.0, unit="log odds that the hit is diffuse"))
    for text in (
        "misindexed (1)",
        "structure / robust standard deviations",
        "score: log odds",
        "predicted non-diffuse",
    ):
        assert text in drawn
    assert "misindexed" not in decode(plot_structure(structure, score, group, nothing, 0.0, unit="log odds"))


def test_groups_are_counted_without_those_that_have_no_value() -> None:
    values = np.array([1.0, 2.0, np.nan, 50.0, 3.0])
    group = np.array(["predicted diffuse"] * 3 + ["misindexed", "not ranked"], dtype=object)
    drawn = decode(plot_groups(values, group, np.arange(0.0, 10.0, 3.0), "angle / deg", marked=2.0))
    for text in ("predicted diffuse (2)", "misindexed (1)", "not ranked (1)", "angle / deg"):
        assert text in drawn


def test_the_same_numbers_give_the_same_bytes() -> None:
    q, correlation = np.linspace(0.1, 2.0, 7), np.array([0.1, 0.5, np.nan, 0.3, -0.2, 0.0, 0.1])
    assert plot_half_maps(q, correlation) == plot_half_maps(q, correlation)
    assert "correlation of the half maps" in decode(plot_half_maps(q, correlation))


def test_coordinates_and_eigenvalues_say_what_is_shown() -> None:
    label = np.array(["diffuse", "non-diffuse", "unlabelled", "diffuse"], dtype=object)
    x, y = RANDOM.normal(size=(2, 4))
    drawn = decode(
        plot_coordinates(x, y, label, np.array([True, False, False, False]), ["coordinate 2", "coordinate 5"])
    )
    assert all(text in drawn for text in ("coordinate 2", "coordinate 5", "non-diffuse", "unlabelled", "top 1"))
    assert "shown beside" in decode(plot_eigenvalues(np.array([0.9, 0.5, -0.1]), [0, 2]))
