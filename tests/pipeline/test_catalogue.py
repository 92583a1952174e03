"""The catalogue of a campaign: the same however many frames are looked at together."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

from diffdask import catalogue as module
from diffdask.catalogue import catalogue, catalogue_table, write_catalogue
from diffdask.io.results_store import open_group, replace_group
from diffdask.pipeline.rank import rank


@pytest.fixture(params=[46, 20], ids=["all frames ranked", "frames ingested since"])
def results(request, small, tmp_path):
    results = small.copy(tmp_path / "results.zarr")
    rank(results, ranker=small.ranker)
    scores = open_group(results, "scores").load()
    replace_group(results, "scores", scores.isel(frame=slice(0, request.param)), scores.attrs)
    return results


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("together", [1, 8, 20, 46, 1000])
def test_what_is_written_some_frames_at_a_time_is_the_table(results, tmp_path, monkeypatch, suffix, together):
    table = catalogue_table(results)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", together)
    whole = write_catalogue([table], tmp_path / f"whole{suffix}")
    to = catalogue(results, to=tmp_path / f"pieces{suffix}")
    assert len(table) == 46
    if suffix == ".csv":
        assert to.read_text() == whole.read_text()
        return
    pd.testing.assert_frame_equal(pd.read_parquet(to), pd.read_parquet(whole))
    assert pd.read_parquet(to).attrs == table.attrs
    assert pq.read_schema(to) == pq.read_schema(whole)
    assert pq.ParquetFile(to).num_row_groups == -(-46 // together)


def test_frames_and_columns_that_are_asked_for_are_those_of_the_whole(results):
    table, frames = catalogue_table(results), [3, 7, 30, 45]
    columns = ["frame_id", "frame_status", "frame_is_hit", "frame_score"]
    some = catalogue_table(results, columns=columns)
    pd.testing.assert_frame_equal(some, table[columns])
    assert some.attrs == table.attrs
    pd.testing.assert_frame_equal(catalogue_table(results, frames=frames), table.loc[frames])
