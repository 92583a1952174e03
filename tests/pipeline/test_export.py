import h5py
import numpy as np
import pandas as pd
import pytest

from diffdask.errors import BadParameter, MissingVariable
from diffdask.io.results_store import create_results, replace_group
from diffdask.pipeline.export import choose_top, export
from diffdask.pipeline.ingest import ingest
from diffdask.variables import wrap

RANKS = np.array([0, 3, 1, 0, 2])

#: Of the hits, frames 1, 2 and 4: one peak, none, two.
PEAKS = wrap(
    hit_peak_count=np.array([1, 0, 2]),
    peak_panel=np.array([[0, -1], [-1, -1], [1, 0]]),
    peak_ss=np.array([[1.5, np.nan], [np.nan, np.nan], [2.5, 0.75]], np.float32),
    peak_fs=np.array([[3.5, np.nan], [np.nan, np.nan], [4.5, 5.0]], np.float32),
    peak_intensity=np.array([[90, np.nan], [np.nan, np.nan], [70, 60]], np.float32),
    peak_snr=np.array([[9, np.nan], [np.nan, np.nan], [7, 6]], np.float32),
)


@pytest.fixture
def results(tiny):
    """Results of five frames, three of them ranked."""
    frames = tiny.folder / "f.zarr"
    ingest(tiny.write("a.cxi", 5), geometry=tiny.geometry, to=frames, block_frames=2, on="threads", progress=False)
    path = tiny.folder / "results.zarr"
    create_results(path, frames=frames)
    replace_group(path, "screen", wrap(frame_is_hit=RANKS > 0), {})
    replace_group(path, "hits", PEAKS.merge(wrap(hit_frame=np.flatnonzero(RANKS))), {})
    score = np.where(RANKS > 0, 1.0 / np.maximum(RANKS, 1), np.nan)
    replace_group(path, "scores", wrap(frame_score=score, frame_rank=RANKS), {})
    return path


def test_the_list_has_the_best_frames_first(results, tiny):
    to = export(results, top=2, to=tiny.folder / "picks.lst")
    assert to.read_text() == f"{tiny.folder / 'a.cxi'} //2\n{tiny.folder / 'a.cxi'} //4\n"


def test_frames_without_a_rank_are_never_exported(results, tiny):
    assert len(export(results, to=tiny.folder / "picks.lst").read_text().splitlines()) == 3


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_subset_holds_the_best_frames_pixels(results, tiny, elsewhere):
    frames = None
    if elsewhere:
        frames = tiny.folder / "copy.zarr"
        (tiny.folder / "f.zarr").rename(frames)
        (tiny.folder / "f.zarr").symlink_to(frames)
    with h5py.File(export(results, top=3, to=tiny.folder / "picks.cxi", frames=frames)) as file:
        np.testing.assert_array_equal(file["/entry_1/data_1/data"], tiny.slab(5)[[2, 4, 1]])


def test_the_subset_holds_the_peaks_of_each_frame_in_the_order_of_rank(results, tiny):
    with h5py.File(export(results, top=3, to=tiny.folder / "picks.cxi")) as file:
        result = {name: values[()].tolist() for name, values in file["/entry_1/result_1"].items()}
    assert result["nPeaks"] == [0, 2, 1]
    assert result["peakXPosRaw"] == [[0, 0], [4, 4.5], [3, 0]]
    assert result["peakYPosRaw"] == [[0, 0], [4 + 2, 0.25], [1, 0]]
    assert result["peakTotalIntensity"] == [[0, 0], [70, 60], [90, 0]]


def test_an_unknown_suffix_names_the_known_ones(results, tiny):
    with pytest.raises(BadParameter, match=r"must end in \.lst or \.cxi"):
        export(results, to=tiny.folder / "picks.txt")


def test_results_without_ranks_are_told_what_makes_them():
    for table in (pd.DataFrame({"run": [1]}), pd.DataFrame({"frame_rank": [0, 0]})):
        with pytest.raises(MissingVariable, match="diffdask rank"):
            choose_top(table, 5)


def test_frames_ingested_after_ranking_are_not_chosen():
    table = pd.DataFrame({"frame_rank": pd.array([2, 1, None, 0], dtype="Int64")})
    assert choose_top(table, 5).index.tolist() == [1, 0]


def test_less_than_one_frame_is_refused(results, tiny):
    with pytest.raises(BadParameter, match="at least 1, got 0"):
        export(results, top=0, to=tiny.folder / "picks.lst")
