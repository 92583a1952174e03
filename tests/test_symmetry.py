import numpy as np
import pytest

from diffdask.errors import BadParameter
from diffdask.simulate import crystal
from diffdask.symmetry import (
    LAUE_GROUPS,
    ambiguity_rotations,
    cartesian_rotations,
    crystal_rotations,
    highest_laue_group,
    laue_group_of,
    laue_rotations,
    mean_cell,
)

ORDERS = {
    **{"-1": 1, "2/m": 2, "mmm": 4, "4/m": 4, "4/mmm": 8, "-3": 3, "-3m1": 6, "-31m": 6, "6/m": 6, "6/mmm": 12},
    **{"m-3": 12, "m-3m": 24, "-3_R": 3, "-3m_R": 6},
}

#: Generators, acting on (h, k, l), written down by hand.
GENERATORS = {
    "triclinic": [],
    "monoclinic": [[[-1, 0, 0], [0, 1, 0], [0, 0, -1]]],
    "orthorhombic": [[[-1, 0, 0], [0, 1, 0], [0, 0, -1]], [[-1, 0, 0], [0, -1, 0], [0, 0, 1]]],
    "tetragonal": [[[0, 1, 0], [-1, 0, 0], [0, 0, 1]], [[1, 0, 0], [0, -1, 0], [0, 0, -1]]],
    "hexagonal": [[[1, 1, 0], [-1, 0, 0], [0, 0, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, -1]]],
}


def as_set(rotations):
    return {tuple(rotation.ravel().tolist()) for rotation in rotations}


@pytest.mark.parametrize("group", LAUE_GROUPS)
def test_the_rotations_of_every_laue_group_are_a_group(group):
    rotations = laue_rotations(group)
    assert len(rotations) == ORDERS[group]
    np.testing.assert_array_equal(rotations[0], np.eye(3))
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0)
    assert as_set((rotations[:, None] @ rotations).reshape(-1, 3, 3)) == as_set(rotations)


@pytest.mark.parametrize("lattice", GENERATORS)
def test_the_highest_laue_group_is_what_its_generators_make(lattice):
    members = {tuple(np.eye(3, dtype=int).ravel().tolist())}
    for _ in range(12):  # as many rotations as the largest of them has
        products = [np.reshape(m, (3, 3)) @ np.array(g) for m in members for g in GENERATORS[lattice]]
        members |= {tuple(product.ravel().tolist()) for product in products}
    assert as_set(laue_rotations(highest_laue_group(lattice))) == members


@pytest.mark.parametrize(
    ("name", "laue"),
    [
        *[("P 61", "6/m"), ("P61", "6/m"), ("P212121", "mmm"), ("P 21 21 21", "mmm"), ("C2", "2/m"), ("I 2 3", "m-3")],
        *[("622", "6/mmm"), ("32", "-3m1"), ("P32", "-3"), ("312", "-31m"), ("321_H", "-3m1"), ("-43m", "m-3m")],
        *[
            ("P 1 1 21", "2/m_uac"),
            ("2_uac", "2/m_uac"),
            ("R 3:R", "-3_R"),
            ("R 3 2:H", "-3m1"),
            ("P 41 21 2", "4/mmm"),
        ],
    ],
)
def test_point_and_space_groups_have_the_rotations_of_their_laue_group(name, laue):
    assert as_set(laue_rotations(name)) == as_set(laue_rotations(laue))


@pytest.mark.parametrize(
    ("group", "cell"),
    [
        ("mmm", (50, 60, 70, 90, 90, 90)),
        ("2/m", (50, 60, 70, 90, 104, 90)),
        ("2/m_uac", (50, 60, 70, 90, 90, 104)),
        ("2/m_uaa", (50, 60, 70, 104, 90, 90)),
        ("4/mmm", (50, 50, 70, 90, 90, 90)),
        ("4/mmm_uaa", (70, 50, 50, 90, 90, 90)),
        ("4/mmm_uab", (50, 70, 50, 90, 90, 90)),
        ("6/mmm", (50, 50, 70, 90, 90, 120)),
        ("-31m", (50, 50, 70, 90, 90, 120)),
        ("6/mmm_uaa", (70, 50, 50, 120, 90, 90)),
        ("-3m_R", (50, 50, 50, 75, 75, 75)),
        ("m-3m", (50, 50, 50, 90, 90, 90)),
    ],
)
def test_mates_have_the_same_resolution(group, cell):
    reciprocal = np.linalg.inv(crystal.cell_axes(tuple(map(float, cell)))).T
    hkl = np.random.default_rng(1).integers(-9, 10, (3, 20))
    mates = laue_rotations(group) @ hkl
    lengths = np.linalg.norm(mates.transpose(0, 2, 1) @ reciprocal, axis=2)
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), rtol=1e-12)


def test_the_lattice_of_a_stream_gives_its_laue_group():
    assert laue_group_of("orthorhombic P *") == "mmm"
    assert laue_group_of("orthorhombic C ?") == "mmm"
    assert laue_group_of("monoclinic P b") == "2/m"
    assert laue_group_of("monoclinic A c") == "2/m_uac"
    assert laue_group_of("tetragonal I a") == "4/mmm_uaa"
    assert laue_group_of("hexagonal P c") == "6/mmm"
    assert laue_group_of("hexagonal H c") == "-3m1"
    assert laue_group_of("rhombohedral R *") == "-3m_R"
    assert laue_group_of("cubic F *") == "m-3m"
    assert laue_group_of("triclinic P ?") == "-1"


@pytest.mark.parametrize(
    ("group", "lattice", "count"),
    [
        *[("P 61", "hexagonal P c", 2), ("6/mmm", "hexagonal P c", 1), ("3", "6/mmm", 4), ("321", "6/mmm", 2)],
        *[("P 4", "tetragonal P c", 2), ("23", "cubic P *", 2), ("222", "orthorhombic P *", 1), ("R 3:H", "-3m1", 2)],
    ],
)
def test_ambiguities_are_the_cosets_of_the_group_in_its_lattice(group, lattice, count):
    ambiguities = ambiguity_rotations(group, lattice)
    assert len(ambiguities) == count
    np.testing.assert_array_equal(ambiguities[0], np.eye(3))
    whole = laue_rotations(laue_group_of(lattice) if " " in lattice else lattice)
    cosets = (ambiguities[:, None] @ laue_rotations(group)).reshape(-1, 3, 3)
    assert len(cosets) == len(whole)  # each rotation of the lattice once, from the left as from the right
    assert as_set(cosets) == as_set(whole)
    assert as_set((laue_rotations(group)[:, None] @ ambiguities).reshape(-1, 3, 3)) == as_set(whole)


def test_unknown_names_say_the_nearest():
    with pytest.raises(BadParameter, match=r"'4/mm' is not known; did you mean '4/mmm'"):
        laue_rotations("4/mm")
    with pytest.raises(BadParameter, match="did you mean 'hexagonal'"):
        highest_laue_group("hexagnal")
    with pytest.raises(BadParameter, match="centring 'Q'"):
        highest_laue_group("cubic", centring="Q")
    with pytest.raises(BadParameter, match="unique axis 'd'"):
        highest_laue_group("monoclinic", unique_axis="d")
    with pytest.raises(BadParameter, match="name the Laue group yourself"):
        laue_group_of("? ? ?")
    with pytest.raises(BadParameter, match="is no subgroup"):
        ambiguity_rotations("4/m", "orthorhombic P *")


def orientations(count, *, cell=(50.0, 50.0, 70.0, 90.0, 90.0, 120.0), strain=0.0, seed=0):
    """Reciprocal axes of crystals in random orientations, each with a cell of its own, and the true rotations."""
    random = np.random.default_rng(seed)
    reciprocal = np.linalg.inv(crystal.cell_axes(cell)).T
    rotations = np.array([crystal.draw_rotation(random) for _ in range(count)])
    axes = (reciprocal * (1 + strain * random.normal(size=(count, 3, 1)))) @ rotations
    return axes, rotations


def test_axes_are_found_where_they_were_turned_from():
    axes, rotations = orientations(20)
    cell = mean_cell(axes, laue_rotations("6/mmm"))
    found = crystal_rotations(axes, cell)
    np.testing.assert_allclose(cell @ found, axes, atol=1e-15)
    # The crystal's frame has a* along x, the simulator's a: they differ by one rotation for all frames.
    between = found @ rotations.transpose(0, 2, 1)
    np.testing.assert_allclose(between, np.broadcast_to(between[0], between.shape), atol=1e-12)
    np.testing.assert_allclose([cell[0, 1], cell[0, 2], cell[1, 2]], 0.0, atol=1e-15)


def test_a_strained_cell_turns_its_frame_by_less_than_the_strain():
    axes, rotations = orientations(50, strain=0.01)
    found = crystal_rotations(axes, mean_cell(axes, laue_rotations("6/m")))
    np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.broadcast_to(np.eye(3), found.shape), atol=1e-12)
    between = found @ rotations.transpose(0, 2, 1)
    assert np.abs(between - np.median(between, axis=0)).max() < 0.02


def test_rotations_of_indices_are_rotations_of_vectors():
    axes, _ = orientations(20, strain=0.01)
    rotations = laue_rotations("6/mmm")
    cell = mean_cell(axes, rotations)
    turned = cartesian_rotations(rotations, cell)
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turned.shape), atol=1e-12)
    hkl = np.array([3, -1, 2])
    np.testing.assert_allclose(turned @ (hkl @ cell), (rotations @ hkl) @ cell, atol=1e-12)


def test_frames_that_are_not_indexed_or_of_another_cell_have_no_rotation():
    axes, _ = orientations(5)
    axes[1], axes[2], axes[3] = np.nan, -axes[2], axes[3] * 1.2
    found = crystal_rotations(axes, mean_cell(axes, laue_rotations("6/mmm")))
    assert np.isnan(found).any(axis=(1, 2)).tolist() == [False, True, True, True, False]
    with pytest.raises(BadParameter, match="no frame has an orientation"):
        mean_cell(axes[1:2], laue_rotations("-1"))
