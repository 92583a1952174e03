"""How many of ordered features count."""

import numpy as np
import pytest

from diffdask.models.coordinates import choose_coordinates
from diffdask.models.ranker import Ranker


@pytest.mark.parametrize("group", [None, np.arange(120) // 10])
def test_those_that_tell_are_kept_and_the_noise_behind_them_is_not(group):
    random = np.random.default_rng(3)
    y = np.arange(120) % 2
    X = random.normal(size=(120, 30))
    X[:, 2] += 2.5 * y
    ranker = Ranker(engine="scikit-learn", component_count=30)
    assert 3 <= choose_coordinates(ranker, X, y, seed=0, group=group) <= 8
    assert ranker.get_params() == Ranker(engine="scikit-learn", component_count=30).get_params()


def test_no_more_are_chosen_than_there_are():
    random = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = random.normal(size=(60, 4)) + y[:, None]
    assert choose_coordinates(Ranker(engine="scikit-learn"), X, y, seed=0) in (1, 2, 3)
