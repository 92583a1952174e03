import numpy as np
import pytest
from scipy import sparse
from scipy.linalg import subspace_angles
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from diffdask.errors import BadParameter
from diffdask.models.diffusion_map import DiffusionMap
from diffdask.models.weights import find_epsilon


def squared_distances(points, others=None):
    return cdist(points, points if others is None else others, "sqeuclidean")


def make_points(count=120, seed=0):
    """Points (n, 3) along a bent line."""
    t = np.sort(np.random.default_rng(seed).uniform(0, 3, count))
    return np.column_stack([t, np.sin(2 * t), np.cos(t)])


def make_circle(count=1500):
    """Angles on a circle, three times as dense on one side as on the other, and their squared distances."""
    grid = np.linspace(0, 2 * np.pi, 20_001)
    share = (grid + 0.5 * np.sin(grid)) / (2 * np.pi)  # density proportional to 1 + cos / 2
    angle = np.interp((np.arange(count) + 0.5) / count, share, grid)
    return angle, squared_distances(np.column_stack([np.cos(angle), np.sin(angle)]))


def walk(weights, alpha):
    """The walk's matrix P and where it comes to rest, from their definitions."""
    sums = weights.sum(axis=1)
    reweighted = weights / np.outer(sums, sums) ** alpha
    return reweighted / reweighted.sum(axis=1, keepdims=True), reweighted.sum(axis=1) / reweighted.sum()


def largest_angle(a, b):
    return subspace_angles(a, b).max()


@pytest.fixture(scope="module")
def points():
    return make_points()


@pytest.fixture(scope="module")
def weights(points):
    return np.exp(-squared_distances(points) / 0.2)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("time", [1, 2, 5])
def test_distance_in_all_coordinates_is_the_diffusion_distance(weights, alpha, time):
    step, rest = walk(weights, alpha)
    after = np.linalg.matrix_power(step, time)
    expected = cdist(after / np.sqrt(rest), after / np.sqrt(rest))
    coordinates = DiffusionMap(None, alpha=alpha, time=time).fit_transform(weights)
    assert coordinates.shape == (120, 119)
    np.testing.assert_allclose(cdist(coordinates, coordinates), expected, atol=1e-8)


def test_it_holds_for_weights_that_are_no_positive_definite_kernel():
    random = np.random.default_rng(0)
    weights = random.uniform(size=(40, 40))
    weights += weights.T
    step, rest = walk(weights, 1.0)
    fitted = DiffusionMap(None).fit(weights)
    assert fitted.eigenvalues_.min() < 0
    expected = cdist(step / np.sqrt(rest), step / np.sqrt(rest))
    np.testing.assert_allclose(cdist(fitted.coordinates_, fitted.coordinates_), expected, atol=1e-10)


@pytest.mark.parametrize("count", [3, 10])
def test_lanczos_finds_what_the_whole_decomposition_finds(weights, count):
    few, all_of_them = DiffusionMap(count).fit(weights), DiffusionMap(None).fit(weights)
    np.testing.assert_allclose(few.eigenvalues_, all_of_them.eigenvalues_[:count], atol=1e-9)
    np.testing.assert_allclose(few.coordinates_, all_of_them.coordinates_[:, :count], atol=1e-7)


def test_eigenvectors_and_eigenvalues_are_those_of_the_walk(weights):
    step, rest = walk(weights, 1.0)
    fitted = DiffusionMap(5).fit(weights)
    np.testing.assert_allclose(step @ fitted.coordinates_, fitted.coordinates_ * fitted.eigenvalues_, atol=1e-9)
    np.testing.assert_allclose(rest @ fitted.coordinates_, 0.0, atol=1e-9)  # the trivial one is not among them
    np.testing.assert_allclose(rest @ fitted.coordinates_**2, fitted.eigenvalues_**2, atol=1e-9)
    assert (np.diff(fitted.eigenvalues_) <= 0).all()
    assert fitted.eigenvalues_[0] < 1


@pytest.mark.parametrize("time", [1, 3])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_extension_gives_training_frames_their_own_coordinates(points, alpha, time):
    distances = squared_distances(points)
    model = DiffusionMap(6, kernel="distances", alpha=alpha, time=time)
    np.testing.assert_allclose(model.fit_transform(distances), model.transform(distances), atol=1e-9)


def test_the_extension_agrees_with_a_map_of_all_frames():
    points = make_points(600)
    is_new = np.arange(600) % 10 == 3
    distances = squared_distances(points)
    model = DiffusionMap(3, kernel="distances", epsilon=0.02).fit(distances[~is_new][:, ~is_new])
    extended = model.transform(distances[is_new][:, ~is_new])
    together = DiffusionMap(3, kernel="distances", epsilon=0.02).fit_transform(distances)[is_new]
    assert np.abs(np.abs(extended) - np.abs(together)).max() < 0.05 * np.abs(together).max()


def test_the_extension_uses_the_width_of_the_training_frames(points):
    model = DiffusionMap(3, kernel="distances").fit(squared_distances(points))
    new = squared_distances(points + 0.01, points)
    same = DiffusionMap(3, kernel="distances", epsilon=model.epsilon_).fit(squared_distances(points))
    np.testing.assert_allclose(model.transform(new), same.transform(new))
    np.testing.assert_allclose(model.transform(new[:1]), model.transform(new)[:1])


def test_alpha_one_finds_the_circle_however_it_was_sampled():
    angle, distances = make_circle()
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    error = {
        alpha: largest_angle(DiffusionMap(2, "distances", alpha, epsilon=0.002).fit_transform(distances), circle)
        for alpha in (0.0, 0.5, 1.0)
    }
    assert error[1.0] < 0.02
    assert error[0.0] > 10 * error[1.0]
    assert error[0.5] > 5 * error[1.0]


def test_the_first_eigenvalues_of_the_circle_are_those_of_the_heat_equation():
    _, distances = make_circle()
    values = DiffusionMap(4, "distances", epsilon=0.002).fit(distances).eigenvalues_
    np.testing.assert_allclose(np.log(values), -0.002 / 2 * np.array([1, 1, 4, 4]), rtol=0.02)


@pytest.mark.parametrize("dimension", [1, 2])
def test_the_chosen_width_is_where_the_slope_of_the_sum_is_largest(dimension):
    points = np.random.default_rng(0).uniform(size=(400, dimension))
    distances = squared_distances(points)
    widths = np.geomspace(1e-5, 1e2, 200)
    total = np.array([np.exp(-distances / (2 * width)).sum() for width in widths])
    slope = np.gradient(np.log(total), np.log(widths))
    chosen = find_epsilon(distances, 0)
    assert abs(np.log2(chosen / widths[slope.argmax()])) < 0.5
    assert slope.max() == pytest.approx(dimension / 2, rel=0.25)


def test_the_chosen_width_scales_with_the_distances(points):
    distances = squared_distances(points)
    one, thousand = (DiffusionMap(3, "distances").fit(factor * distances) for factor in (1.0, 1000.0))
    assert thousand.epsilon_ == pytest.approx(1000.0 * one.epsilon_, rel=1e-9)
    np.testing.assert_allclose(one.coordinates_, thousand.coordinates_, atol=1e-8)


def test_reordering_frames_reorders_coordinates(weights):
    order = np.random.default_rng(0).permutation(len(weights))
    model = DiffusionMap(4)
    moved = model.fit_transform(weights[np.ix_(order, order)])
    np.testing.assert_allclose(moved, model.fit_transform(weights)[order], atol=1e-9)


def test_the_largest_value_of_every_coordinate_is_positive(weights):
    coordinates = DiffusionMap(8).fit_transform(weights)
    assert (coordinates[np.abs(coordinates).argmax(axis=0), np.arange(8)] > 0).all()


def test_the_same_matrix_always_gives_the_same_bits_and_is_left_alone(weights):
    before = weights.copy()
    first, second = (DiffusionMap(4).fit_transform(weights) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(weights, before)


@pytest.mark.parametrize("kernel", ["similarity", "distances"])
def test_sparse_and_dense_matrices_give_the_same(points, kernel):
    matrix = squared_distances(points)
    matrix = np.exp(-matrix) if kernel == "similarity" else matrix + 1e-9
    model = DiffusionMap(5, kernel, epsilon=0.05)
    dense, thin = model.fit_transform(matrix), clone(model).fit(sparse.csr_array(matrix))
    np.testing.assert_allclose(thin.coordinates_, dense, atol=1e-8)
    np.testing.assert_allclose(thin.transform(sparse.coo_array(matrix[:7])), dense[:7], atol=1e-8)


def test_all_neighbours_are_the_dense_matrix(weights):
    all_neighbours = DiffusionMap(5, neighbour_count=len(weights) - 1)
    np.testing.assert_allclose(all_neighbours.fit_transform(weights), DiffusionMap(5).fit_transform(weights), atol=1e-8)
    np.testing.assert_allclose(all_neighbours.transform(weights), all_neighbours.coordinates_, atol=1e-8)


@pytest.mark.parametrize("as_matrix", [np.asarray, sparse.csr_array])
def test_neighbours_are_the_largest_weights_of_either_frame(weights, as_matrix):
    others = np.where(np.eye(len(weights), dtype=bool), -1.0, weights)
    least = np.sort(others, axis=1)[:, -6]
    is_kept = (others >= least[:, None]) | np.eye(len(weights), dtype=bool)
    expected = DiffusionMap(5).fit_transform(np.where(is_kept | is_kept.T, weights, 0.0))
    np.testing.assert_allclose(
        DiffusionMap(5, neighbour_count=6).fit_transform(as_matrix(weights)), expected, atol=1e-8
    )


def test_few_neighbours_span_nearly_the_same_coordinates():
    points = make_points(500)
    distances = squared_distances(points)
    dense = DiffusionMap(2, "distances", epsilon=0.002).fit_transform(distances)
    thin = DiffusionMap(2, "distances", epsilon=0.002, neighbour_count=40).fit_transform(distances)
    assert largest_angle(dense, thin) < 0.05


def test_two_clusters_are_told_apart_by_the_sign_of_the_first_coordinate():
    random = np.random.default_rng(0)
    label = np.arange(200) < 60
    points = random.normal(size=(200, 4)) + 8.0 * label[:, None]
    fitted = DiffusionMap(2, "distances", alpha=0.0, epsilon=8.0).fit(squared_distances(points))
    assert ((fitted.coordinates_[:, 0] > 0) == label).all()  # the few are far out, so the sign is theirs
    assert fitted.eigenvalues_[0] > 0.999
    assert fitted.eigenvalues_[1] < 0.9


def test_unknown_pairs_have_no_weight(weights):
    random = np.random.default_rng(0)
    is_unknown = random.uniform(size=weights.shape) < 0.2
    is_unknown |= is_unknown.T
    np.testing.assert_array_equal(
        DiffusionMap(3).fit_transform(np.where(is_unknown, np.nan, weights)),
        DiffusionMap(3).fit_transform(np.where(is_unknown, 0.0, weights)),
    )


@pytest.mark.parametrize("as_matrix", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("neighbours", [None, 20])
def test_frames_without_a_pair_have_no_coordinates_and_change_nothing(weights, as_matrix, neighbours):
    lost = [3, 50]
    kept = np.setdiff1d(np.arange(len(weights)), lost)
    some = weights.copy()
    some[lost] = some[:, lost] = np.nan
    some[lost, lost] = 1.0
    model = DiffusionMap(4, neighbour_count=neighbours).fit(as_matrix(some))
    assert np.isnan(model.coordinates_[lost]).all()
    assert model.part_[lost].tolist() == [-1, -1]
    alone = DiffusionMap(4, neighbour_count=neighbours).fit(weights[np.ix_(kept, kept)])
    np.testing.assert_allclose(model.coordinates_[kept], alone.coordinates_, atol=1e-8)
    extended = model.transform(weights)
    np.testing.assert_allclose(extended[kept][:5], alone.transform(weights[kept][:, kept])[:5], atol=1e-8)
    assert np.isnan(model.transform(np.full((1, len(weights)), np.nan))).all()


@pytest.mark.parametrize("as_matrix", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("count", [2, 4, 20, None])
def test_parts_that_nothing_connects_are_told_apart_first(weights, as_matrix, count):
    part = np.arange(len(weights)) // 45  # of 45, 45 and 30 frames
    apart = np.where(part[:, None] == part, weights, 0.0)
    fitted = DiffusionMap(count).fit(as_matrix(apart))
    np.testing.assert_array_equal(fitted.part_, part)
    np.testing.assert_allclose(fitted.eigenvalues_[:2], 1.0)
    for number in range(3):
        np.testing.assert_allclose(np.ptp(fitted.coordinates_[part == number][:, :2], axis=0), 0.0, atol=1e-9)
    if count is None:
        step, rest = walk(apart, 1.0)
        expected = cdist(step / np.sqrt(rest), step / np.sqrt(rest))
        np.testing.assert_allclose(cdist(fitted.coordinates_, fitted.coordinates_), expected, atol=1e-8)
    else:
        assert fitted.coordinates_.shape == (len(weights), count)
        assert (fitted.eigenvalues_[2:] < 0.9999).all()


def test_unknown_pairs_that_a_sparse_matrix_holds_connect_nothing(weights):
    part = np.arange(len(weights)) // 60
    unknown = sparse.csr_array(np.where(part[:, None] == part, weights, np.nan))
    np.testing.assert_array_equal(DiffusionMap(3).fit(unknown).part_, part)


def test_more_parts_than_coordinates_are_refused(weights):
    part = np.arange(len(weights)) // 10
    with pytest.raises(BadParameter, match="12 parts, the largest of 10 frames"):
        DiffusionMap(5).fit(np.where(part[:, None] == part, weights, 0.0))


def test_single_precision_stays_single_and_agrees(weights):
    few = DiffusionMap(4)
    np.testing.assert_allclose(
        few.fit_transform(weights.astype(np.float32)), few.fit_transform(weights), rtol=1e-2, atol=1e-3
    )


def test_folds_of_scikit_learn_take_rows_and_columns_alike(weights):
    order = np.random.default_rng(0).permutation(len(weights))
    scores = cross_val_score(
        make_pipeline(DiffusionMap(3), LogisticRegression()), weights[np.ix_(order, order)], order < 60, cv=4
    )
    assert scores.mean() > 0.9


@pytest.mark.parametrize(
    ("parameters", "spoil", "told"),
    [
        ({"kernel": "distance"}, lambda w: w, "did you mean 'distances'"),
        ({}, lambda w: w[:5], "square"),
        ({}, lambda w: w[:1, :1], "square"),
        ({}, lambda w: w + np.triu(w), "symmetric"),
        ({}, lambda w: sparse.csr_array(w + np.triu(w)), "symmetric"),
        ({}, lambda w: np.where(np.arange(len(w)) == 3, np.nan, w), "symmetric"),
        ({}, lambda w: w - 0.5, "exponential of correlations"),
        ({"kernel": "distances"}, lambda w: w - 0.5, "must be squared"),
        ({"kernel": "distances"}, np.zeros_like, "no distance is above 0"),
        ({}, lambda w: np.eye(len(w)), "no two frames are connected"),
        ({"time": 0}, lambda w: w, "time = 0"),
        ({"time": 1.5}, lambda w: w, "time = 1.5"),
        ({"epsilon": 0.0, "kernel": "distances"}, lambda w: w, "epsilon = 0.0"),
        ({"component_count": 120}, lambda w: w, "component_count = 120 must be from 1 to 119"),
        ({"neighbour_count": 0}, lambda w: w, "neighbour_count = 0"),
    ],
)
def test_what_makes_no_sense_is_refused(weights, parameters, spoil, told):
    with pytest.raises(BadParameter, match=told):
        DiffusionMap(**parameters).fit(spoil(weights))


def test_other_frames_need_a_column_for_every_training_frame(weights):
    with pytest.raises(NotFittedError):
        DiffusionMap().transform(weights)
    with pytest.raises(BadParameter, match="120 columns"):
        DiffusionMap(3).fit(weights).transform(weights[:, :50])
