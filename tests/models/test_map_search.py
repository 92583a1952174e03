"""The search in the map of given frames."""

import numpy as np
import pytest

from diffdask.errors import BadParameter
from diffdask.models.map_search import search_in_map_of
from diffdask.models.orientation_search import OrientationSearch

IDENTITY = np.eye(3)[None]


def make_frames(count=6, rings=8, azimuths=24, seed=0):
    random = np.random.default_rng(seed)
    rotation = np.linalg.qr(random.normal(size=(count, 3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))[:, None, None]
    return {
        "values": random.normal(size=(count, rings, azimuths)).astype(np.float32),
        "rotation": rotation,
        "wavelength": np.full(count, 1.3),
        "weight": np.linspace(0.0, 1.0, count),
        "ring_q": np.linspace(0.5, 1.2, rings),
        "rotations": IDENTITY,
        "mean_wavelength": 1.3,
        "search": OrientationSearch(count=2000),
    }


def test_frames_without_weight_are_not_in_the_map():
    frames = make_frames()
    made = search_in_map_of(**frames)
    frames["values"][0], frames["rotation"][0], frames["search"] = 1e3, np.nan, OrientationSearch(count=2000)
    np.testing.assert_array_equal(made.density_, search_in_map_of(**frames).density_)


def test_a_frame_is_found_in_the_map_it_made():
    frames = make_frames() | {"weight": np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])}
    found = search_in_map_of(**frames).search(frames["values"][:2], frames["wavelength"][:2])
    assert found.score[1] > found.score[0] + 2.0


def test_a_map_of_no_frame_is_refused():
    with pytest.raises(BadParameter):
        search_in_map_of(**make_frames() | {"weight": np.zeros(6)})
