import json
import shutil

import numpy as np
import pytest
import zarr

from diffdask.errors import BadStore
from diffdask.io.nuisance_store import load_nuisance, save_nuisance
from diffdask.models.nuisance import NuisanceComponents

SHAPE = (6, 12)


def make_hits(count, seed=0):
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, *SHAPE)) + 2 * random.normal(size=(count, 1, 1)) * np.cos(np.arange(12) / 2)
    values[random.uniform(size=values.shape) < 0.1] = np.nan
    values[:, 0, 0] = np.nan
    return values


@pytest.fixture(scope="module")
def model():
    """Fitted to two runs of hits enough, and one of three hits, whose hits wait."""
    return NuisanceComponents(clip=5.0, seed=3).fit(make_hits(83), np.repeat([1, 7, 9], [40, 40, 3]))


@pytest.fixture
def store(model, tmp_path):
    save_nuisance(tmp_path / "nuisance.zarr", model)
    return tmp_path / "nuisance.zarr"


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_a_loaded_model_cleans_hits_and_goes_on_learning_as_the_saved_one(tmp_path, kind):
    hits, runs = make_hits(83).astype(kind), np.repeat([1, 7, 9], [40, 40, 3])
    model = NuisanceComponents(component_count=2).fit(hits, runs)
    save_nuisance(tmp_path / "nuisance.zarr", model)
    loaded = load_nuisance(tmp_path / "nuisance.zarr")
    more, more_runs = make_hits(30, seed=1).astype(kind), np.repeat([1, 9, 11], 10)
    for _ in range(2):
        one, other = (m.transform(more, more_runs) for m in (model, loaded))
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype == kind
        for m in (model, loaded):
            m.partial_fit(more, more_runs)
    assert 9 in loaded.run_median_
    np.testing.assert_array_equal(loaded.held_out_variance_, model.held_out_variance_)


def test_it_remembers_all(model, store):
    loaded = load_nuisance(store)
    assert loaded.get_params() == model.get_params()
    assert loaded.component_count_ == model.component_count_
    assert loaded.run_hits_ == {run: model.run_hits_[run] for run in (1, 7)}
    assert list(loaded.waiting_) == [9]
    for name in ("run_median_", "waiting_"):
        for run, values in getattr(model, name).items():
            np.testing.assert_array_equal(getattr(loaded, name)[run], values)
    for name in ("sketches_", "fold_components_"):
        for one, other in zip(getattr(model, name), getattr(loaded, name), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_model_of_few_hits_or_none_is_kept_too(tmp_path, count):
    model = NuisanceComponents().fit(make_hits(count), np.ones(count, int))
    save_nuisance(tmp_path / "few.zarr", model)
    hits = make_hits(3)
    cleaned = load_nuisance(tmp_path / "few.zarr").transform(hits, np.ones(3, int))
    np.testing.assert_array_equal(cleaned, model.transform(hits, np.ones(3, int)))


def replace_array(store, name, values):
    group = zarr.open_group(store, mode="r+")
    del group[name]
    group.create_array(name, data=np.asarray(values))


ARRAYS = (
    "overall_median_", "components_", "held_out_variance_", "lost_", "hit_count_", "run", "run_hits", "run_median",
    "waiting", "waiting_run", "sketch", "sketch_rows", "fold_component", "fold_component_rows",
)  # fmt: skip


def test_no_array_goes_untested(store):
    assert sorted(zarr.open_group(store, mode="r").array_keys()) == sorted(ARRAYS)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_array_is_told(store, name):
    shutil.rmtree(store / name)
    with pytest.raises(BadStore, match=r"damaged.*fit them again"):
        load_nuisance(store)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("overall_median_", np.zeros((6, 11))),
        ("overall_median_", np.zeros(72)),
        ("run_median", np.zeros((2, 6, 11))),
        ("run_median", np.zeros((1, 6, 12))),
        ("run_hits", [3]),
        ("waiting_run", [9, 9]),
        ("waiting", np.zeros((3, 5, 12))),
        ("components_", np.zeros((2, 71))),
        ("components_", np.zeros(72)),
        ("components_", np.full((2, 72), np.nan)),
        ("sketch_rows", [1, 2, 3, 4, 5]),
        ("sketch_rows", [83]),
        ("fold_component_rows", [99, 0, 0, 0, 0]),
        ("lost_", [0.0, 0.0]),
        ("lost_", [np.inf] * 5),
        ("hit_count_", [1]),
    ],
)
def test_an_array_of_wrong_shape_or_numbers_is_told(store, name, values):
    replace_array(store, name, values)
    with pytest.raises(BadStore, match=r"damaged.*fit them again"):
        load_nuisance(store)


@pytest.mark.parametrize("name", ["parameters", "component_count"])
def test_a_missing_attribute_is_told(store, name):
    del zarr.open_group(store, mode="r+").attrs[name]
    with pytest.raises(BadStore, match="damaged"):
        load_nuisance(store)


def test_parameters_that_components_do_not_have_are_told(store):
    zarr.open_group(store, mode="r+").attrs["parameters"] = {"power": 3}
    with pytest.raises(BadStore, match="damaged"):
        load_nuisance(store)


def test_another_kind_of_store_is_refused_and_never_replaced(model, tmp_path):
    with pytest.raises(BadStore, match="diffdask screen"):
        load_nuisance(tmp_path / "absent.zarr")
    zarr.open_group(tmp_path / "other.zarr", mode="w", attributes={"kind": "diffdask frames"})
    for call in (lambda path: load_nuisance(path), lambda path: save_nuisance(path, model)):
        with pytest.raises(BadStore, match="kind 'diffdask frames'"):
            call(tmp_path / "other.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadStore):
        save_nuisance(tmp_path / "folder", model)
    (tmp_path / "spoilt.zarr").mkdir()
    (tmp_path / "spoilt.zarr" / "zarr.json").write_text("{")
    with pytest.raises(BadStore, match="can be read"):
        load_nuisance(tmp_path / "spoilt.zarr")


def test_a_new_model_replaces_an_old_one_and_leaves_nothing_beside_it(store):
    (store.parent / ".nuisance.zarr.partial").mkdir()
    (store.parent / ".nuisance.zarr.partial" / "rest").write_text("of an interrupted fit")
    save_nuisance(store, NuisanceComponents(1).fit(make_hits(20), np.ones(20, int)))
    assert load_nuisance(store).component_count == 1
    assert [path.name for path in store.parent.iterdir()] == ["nuisance.zarr"]


def test_it_is_arrays_and_json_only(store):
    for path in store.rglob("zarr.json"):
        json.loads(path.read_text())
    assert all("c" in path.parts or path.name == "zarr.json" for path in store.rglob("*") if path.is_file())


def test_a_truncated_or_lost_file_is_told(store):
    file = next(path for path in (store / "components_" / "c").rglob("*") if path.is_file())
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadStore, match=r"damaged.*fit them again"):
        load_nuisance(store)
    file.unlink()
    with pytest.raises(BadStore, match=r"damaged \(.*unit length.*fit them again"):
        load_nuisance(store)
