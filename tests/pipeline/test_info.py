import json

import numpy as np
import pytest
import zarr

from diffdask.errors import BadStore
from diffdask.io.results_store import create_results
from diffdask.pipeline.info import info
from diffdask.pipeline.rank import rank
from diffdask.version import __version__


def test_a_frames_store_says_what_it_holds(small):
    told = info(small.frames)
    assert told["kind"] == "diffdask frames"
    assert told["version"] == __version__
    assert told["complete"] is True
    assert told["frames"] == 46
    assert told["runs"] == {"1": 15, "2": 15, "3": 16}
    assert told["panels"] == "2 of 64 x 128 pixels"
    assert told["status"] == {"ok": 46}
    assert [source.rsplit("/", 1)[1] for source in told["sources"]] == ["r0001.cxi", "r0002.cxi", "r0003.cxi"]


def test_results_say_what_made_them(small, tmp_path):
    results = small.copy(tmp_path / "results.zarr")
    assert info(results)["scores"] == "not made yet, or not finished"
    told = info(rank(results, ranker=small.ranker))
    assert told["kind"] == "diffdask results"
    assert told["frames store"] == str(small.frames)
    assert told["screen"]["hits"] == (small.label() != "blank").sum() == told["features"]["sizes"]["hit"]
    assert told["screen"]["parameters"]["snr"] == 6.0
    assert told["layout"]["parameters"]["ring_count"] == 60
    assert told["scores"]["parameters"]["share"] == 1.0


def test_a_ranker_says_what_it_was_trained_on(small):
    told = info(small.ranker)
    assert told["kind"] == "diffdask ranker"
    assert told["trained on"] == (small.label() != "blank").sum()
    assert told["features"]["polar_ring_count"] == 20


def test_all_of_it_is_json(small):
    for store in (small.frames, small.results, small.ranker):
        told = info(store)
        assert json.loads(json.dumps(told)) == told


def test_unfinished_stores_are_described_as_such(small, tmp_path):
    create_results(tmp_path / "results.zarr", frames=small.frames)
    told = info(tmp_path / "results.zarr")
    assert {told[group] for group in ("layout", "screen", "hits", "features", "scores")} == {
        "not made yet, or not finished"
    }


def test_something_else_is_refused(small, tmp_path):
    with pytest.raises(BadStore, match="no Zarr store at"):
        info(tmp_path / "absent.zarr")
    with pytest.raises(BadStore, match="no Zarr store at"):
        info(small.labels)
    zarr.save_group(tmp_path / "other.zarr", numbers=np.arange(3))
    with pytest.raises(BadStore, match="none of diffdask's"):
        info(tmp_path / "other.zarr")
    zarr.save_array(tmp_path / "array.zarr", np.arange(3))
    with pytest.raises(BadStore):
        info(tmp_path / "array.zarr")
    (tmp_path / "spoilt.zarr").mkdir()
    (tmp_path / "spoilt.zarr" / "zarr.json").write_text("{")
    with pytest.raises(BadStore):
        info(tmp_path / "spoilt.zarr")
