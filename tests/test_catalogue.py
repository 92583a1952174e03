"""The catalogue: nothing is lost on the way into it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr

from diffdask.catalogue import NOT_SCREENED, table_of_frames, whole_file, write_catalogue
from diffdask.errors import BadParameter
from diffdask.variables import wrap

COUNT = 6


def frames() -> xr.Dataset:
    orientation = np.full((COUNT, 3, 3), np.nan)
    orientation[[1, 4]] = np.eye(3)
    dataset = wrap(
        frame_id=np.array([f"r{number // 3}/e{number}" for number in range(COUNT)], dtype=object),
        run=np.arange(COUNT) // 3,
        event=np.array([f"//{number}" for number in range(COUNT)], dtype=object),
        source=np.array(['a, "b".cxi'] * COUNT, dtype=object),
        photon_energy=np.linspace(9400.0, 9500.0, COUNT),
        camera_length=np.full(COUNT, 0.128),
        frame_status=np.array(["ok", "ok", "ok", "truncated", "ok", "ok"], dtype=object),
        orientation=orientation,
        detector_shift=np.zeros((COUNT, 2)),
    )
    return dataset


def screen(count: int = COUNT) -> xr.Dataset:
    status = np.array(["ok", "ok", "no ring", "ok", "ok", "ok"][:count], dtype=object)
    return wrap(
        frame_is_hit=np.arange(count) % 2 == 0,
        frame_peak_count=np.arange(count) * 10,
        frame_anisotropy=np.linspace(0.0, 1.0, count),
        frame_status=status,
        background_profile=np.ones((count, 4)),
        ring_q=np.arange(4.0),
    )


def scores() -> xr.Dataset:
    is_hit = np.arange(COUNT) % 2 == 0
    return wrap(frame_score=np.where(is_hit, 0.1 * np.arange(COUNT), np.nan), frame_rank=np.array([3, 0, 2, 0, 1, 0]))


def test_every_ingested_frame_has_a_row_in_ingest_order() -> None:
    for groups in ((), (None,), (screen(),), (screen(), None), (screen(), scores()), (screen(3), scores())):
        table = table_of_frames(frames(), *groups)
        assert table.index.tolist() == list(range(COUNT))
        assert table.index.name == "frame"
        assert table["frame_id"].tolist() == frames()["frame_id"].values.tolist()


def test_the_columns_are_all_variables_of_a_frame_and_only_those() -> None:
    table = table_of_frames(frames(), screen(), scores())
    expected = {
        *("frame_id", "run", "event", "source", "photon_energy", "camera_length", "frame_status", "frame_is_indexed"),
        *("frame_is_hit", "frame_peak_count", "frame_anisotropy", "frame_score", "frame_rank"),
        *(f"{axis}_star_{direction}" for axis in "abc" for direction in "xyz"),
    }
    assert set(table.columns) == expected
    np.testing.assert_array_equal(table["b_star_z"], frames()["orientation"].values[:, 1, 2])
    assert table.columns[0] == "frame_id"
    assert table["frame_is_hit"].dtype == bool
    assert table["frame_peak_count"].dtype == np.int64
    assert table["frame_is_indexed"].tolist() == [False, True, False, False, True, False]


def test_the_first_reason_why_a_frame_failed_stands_and_a_later_one_is_added() -> None:
    table = table_of_frames(frames(), screen())
    assert table["frame_status"].tolist() == ["ok", "ok", "no ring", "truncated", "ok", "ok"]


def test_frames_ingested_after_the_screen_have_gaps_and_say_why() -> None:
    table = table_of_frames(frames(), screen(3))
    assert table["frame_status"].tolist() == ["ok", "ok", "no ring", "truncated", NOT_SCREENED, NOT_SCREENED]
    assert table["frame_is_hit"].isna().tolist() == [False] * 3 + [True] * 3
    assert table["frame_peak_count"][:3].tolist() == [0, 10, 20]
    assert table["frame_is_hit"].sum() == 2


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("screened", [3, COUNT])
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str, screened: int) -> None:
    table = table_of_frames(frames(), screen(screened), scores())
    to = write_catalogue([table], tmp_path / "new folder" / f"catalogue{suffix}")
    back = pd.read_parquet(to) if suffix == ".parquet" else pd.read_csv(to, index_col="frame")
    assert [path.name for path in to.parent.iterdir()] == [to.name]
    if suffix == ".csv":  # text has no types, only what pandas makes of it
        back, table = back.convert_dtypes(), table.convert_dtypes()
    pd.testing.assert_frame_equal(back, table, check_index_type=False)


def test_parquet_carries_the_versions_and_parameters(tmp_path: Path) -> None:
    table = table_of_frames(frames(), screen())
    table.attrs = {"screen": {"parameters": {"snr": 6.0}, "version": "0.1"}, "scores": None}
    to = write_catalogue([table], tmp_path / "c.parquet")
    assert pd.read_parquet(to).attrs == table.attrs
    assert json.loads(pq.read_schema(to).metadata[b"PANDAS_ATTRS"]) == table.attrs


def test_an_unknown_suffix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match=r"\.parquet or \.csv"):
        write_catalogue([table_of_frames(frames())], tmp_path / "catalogue.xlsx")
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_earlier_file_as_it_was(tmp_path: Path) -> None:
    to = tmp_path / "catalogue.csv"
    to.write_text("earlier")

    def fail() -> None:
        with whole_file(to) as partial:
            partial.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert to.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == [to.name]
