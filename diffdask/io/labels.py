"""A person's labels: a CSV with the columns ``frame`` and ``label``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffdask.errors import BadLabels, nearest
from diffdask.io.whole_file import read_file
from diffdask.variables import LABELS

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("frame", "label")


def read_labels(path: str | Path, frame_ids: Sequence[str]) -> pd.Series:
    """Read the labels of a campaign's frames.

    Parameters
    ----------
    path
        CSV with a header, here or at a URL. ``frame`` is a whole number, the frame's number in
        ingest order, or else a ``frame_id``; ``label`` is one of
        :data:`~diffdask.variables.LABELS`, or empty where the frame has none
        yet. Further columns are ignored.
    frame_ids
        (frame,) the frames store's ``frame_id``, in ingest order.

    Returns
    -------
    pandas.Series
        ``label`` of the labelled frames only; the index ``frame`` is the
        frame's number, ascending.

    Raises
    ------
    BadLabels
        If the file is absent or no text, lacks a column, holds no label, an unknown label,
        a frame that the store does not have, or two different labels of a frame.
    """
    import pandas as pd

    number_of = {str(frame_id): number for number, frame_id in enumerate(frame_ids)}
    label_of: dict[int, str] = {}
    for line, written_frame, label in _rows(path):
        if label not in LABELS:
            raise BadLabels(f"'{path}', line {line}: unknown label '{label}'; {nearest(label, LABELS)}")
        frame = _frame_number(written_frame, number_of, f"'{path}', line {line}")
        if label_of.setdefault(frame, label) != label:
            raise BadLabels(
                f"'{path}', line {line}: frame {frame} is labelled '{label}', but '{label_of[frame]}' before; "
                "keep one of the two"
            )
    if not label_of:
        raise BadLabels(f"'{path}' holds no label: give rows with a frame and one of {', '.join(LABELS)}")
    frames = sorted(label_of)
    index = pd.Index(frames, name="frame", dtype="int64")
    return pd.Series([label_of[frame] for frame in frames], index=index, name="label")


def _rows(path: str | Path) -> list[tuple[int, str, str]]:
    """Line number, frame and label of every row that has a label."""
    try:
        written = read_file(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise BadLabels(f"no labels at '{path}': give a CSV with the columns {' and '.join(_COLUMNS)}") from None
    try:
        reader = csv.DictReader(io.StringIO(written.decode("utf-8-sig"), newline=""), skipinitialspace=True)
        names = {(name or "").strip(): name for name in reader.fieldnames or ()}
        for column in _COLUMNS:
            if column not in names:
                found = ", ".join(names) or "no columns"
                raise BadLabels(f"'{path}' has no column '{column}'; it has: {found}")
        rows = [(reader.line_num, _cell(row, names["frame"]), _cell(row, names["label"])) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadLabels(f"'{path}' is no CSV text in UTF-8: {error}") from error
    return [row for row in rows if row[2]]


def _cell(row: dict[str, str], name: str) -> str:
    # A row shorter than the header leaves None in its last columns.
    return (row[name] or "").strip()


def _frame_number(written: str, number_of: dict[str, int], where: str) -> int:
    """Number of the frame that a row names by number or by ``frame_id``."""
    if written.lstrip("+-").isdecimal():
        frame = int(written)
        if not 0 <= frame < len(number_of):
            raise BadLabels(f"{where}: no frame {frame}; the store has the frames 0 to {len(number_of) - 1}")
        return frame
    if not written:
        raise BadLabels(f"{where}: a label without a frame; give the frame's number or its frame_id")
    if written not in number_of:
        example = next(iter(number_of), "")
        raise BadLabels(f"{where}: unknown frame_id '{written}'; a frame_id of the store is, for example, '{example}'")
    return number_of[written]
