"""CrystFEL's ``.stream``: the orientations that indexing found.

Only the heads of chunks and crystals are read; lists of peaks and reflections,
nearly all of a stream, are stepped over by searching for their ends. Works for
the formats 2.1 to 2.3 and what later versions add.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from diffdask.errors import BadStream

_log = logging.getLogger(__name__)

#: What CrystFEL writes for an image that is alone in its file.
NO_EVENT = "//"

_FIRST_LINE = b"CrystFEL stream format"
_BEGIN, _END = b"----- Begin chunk -----", b"----- End chunk -----"
_BEGIN_CRYSTAL, _END_CRYSTAL = b"--- Begin crystal", b"--- End crystal"
_LISTS = (b"Peaks from peak search", b"Reflections measured after indexing")

_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_AXIS = re.compile(rf"^([abc])star\s*=\s*{_NUMBER}\s+{_NUMBER}\s+{_NUMBER}\s+nm\^-1", re.MULTILINE)
_SHIFT = re.compile(rf"det_shift x\s*=\s*{_NUMBER}\s+y\s*=\s*{_NUMBER}\s+mm")
_PER_NM = 0.1  # 1/nm in 1/angstrom


@dataclass(frozen=True)
class Crystal:
    """One lattice found in a frame."""

    orientation: np.ndarray  #: (reciprocal_axis, xyz) 1/angstrom, laboratory frame: a*, b*, c*
    detector_shift: tuple[float, float]  #: m in x and y; zero where indexing did not refine it
    lattice: str  #: lattice type, centring and unique axis, as in "orthorhombic P *"
    reflection_count: int


@dataclass(frozen=True)
class Chunk:
    """What a stream says of one frame."""

    image: str  #: file name as the stream has it
    event: str  #: event in the file, as in "//12"; "//" for a file of one frame
    crystals: tuple[Crystal, ...]  #: empty where the frame was not indexed

    @property
    def best_crystal(self) -> Crystal | None:
        """The crystal with most reflections (the first of equals); None where not indexed."""
        return max(self.crystals, key=lambda crystal: crystal.reflection_count, default=None)


def read_stream(path: str | Path) -> list[Chunk]:
    """Read a CrystFEL stream to its last crystal.

    Parameters
    ----------
    path
        The ``.stream``.

    Returns
    -------
    list of Chunk
        In the stream's order, frames without crystals included. A last chunk
        that was cut off (indexing was killed) is kept, with its whole
        crystals, and told of as a warning in the log.

    Raises
    ------
    BadStream
        If the file is absent or no stream, or a chunk names no image.
    """
    path = Path(path)
    if not path.is_file():
        raise BadStream(f"no stream at '{path}'")
    with path.open("rb") as file, _mapped(file) as text:
        if not text[: len(_FIRST_LINE)] == _FIRST_LINE:
            raise BadStream(f"'{path}' is no CrystFEL stream: it does not begin with '{_FIRST_LINE.decode()}'")
        return list(_chunks(text, path))


def match_images(images: Iterable[str], sources: Sequence[str]) -> dict[str, str | None]:
    """Say which source each image name of a stream means.

    Parameters
    ----------
    images
        File names as streams have them: their folder may have moved since.
    sources
        Paths of all sources.

    Returns
    -------
    dict
        Image name to source; None where no source has the image's base name.
        Of several such sources it is the one that shares most folders, counted
        from the end.

    Raises
    ------
    BadStream
        If that is the same for several sources.

    Examples
    --------
    >>> match_images(["r1/x.cxi"], ["/data/r1/x.cxi", "/data/r2/x.cxi"])
    {'r1/x.cxi': '/data/r1/x.cxi'}
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    for source in dict.fromkeys(sources):
        by_name[Path(source).name].append(source)
    return {image: _best_source(image, by_name.get(PurePosixPath(image).name, [])) for image in images}


@contextlib.contextmanager
def _mapped(file: object) -> Iterator[mmap.mmap | bytes]:
    try:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # type: ignore[attr-defined]
    except ValueError:  # an empty file cannot be mapped
        yield b""
    else:
        with mapped:
            yield mapped


def _chunks(text: mmap.mmap | bytes, path: Path) -> Iterator[Chunk]:
    begin = text.find(_BEGIN)
    while begin >= 0:
        end = text.find(_END, begin)
        following = text.find(_BEGIN, begin + len(_BEGIN))
        is_cut_off = end < 0 or 0 <= following < end
        if is_cut_off:
            end = following if following >= 0 else len(text)
            _log.warning("'%s' has a chunk that was cut off at byte %d; its whole crystals are used", path, end)
        chunk = _chunk(bytes(text[begin:end]), path, begin, is_cut_off)
        if chunk is not None:
            yield chunk
        begin = following


def _chunk(text: bytes, path: Path, offset: int, is_cut_off: bool) -> Chunk | None:
    parts = text.split(_BEGIN_CRYSTAL)
    head = _before_lists(parts[0])
    image = _value(head, "Image filename:")
    if image is None and is_cut_off:
        return None
    if image is None:
        raise BadStream(f"'{path}': the chunk at byte {offset} has no 'Image filename:'")
    crystals = [_crystal(_before_lists(part.split(_END_CRYSTAL)[0])) for part in parts[1:]]
    if None in crystals and not is_cut_off:
        _log.warning("'%s': a crystal of '%s' has no astar, bstar and cstar that can be read", path, image)
    return Chunk(image, _value(head, "Event:") or NO_EVENT, tuple(c for c in crystals if c is not None))


def _crystal(head: str) -> Crystal | None:
    """Read a crystal; None where an axis is missing, as where a stream was cut off."""
    axes = {name: (float(x), float(y), float(z)) for name, x, y, z in _AXIS.findall(head)}
    if len(axes) < 3:
        return None
    shift = _SHIFT.search(head)
    words = [_value(head, f"{key} =") or "?" for key in ("lattice_type", "centering", "unique_axis")]
    count = _value(head, "num_reflections =") or "0"
    return Crystal(
        orientation=np.array([axes["a"], axes["b"], axes["c"]]) * _PER_NM,
        detector_shift=(float(shift[1]) * 1e-3, float(shift[2]) * 1e-3) if shift else (0.0, 0.0),
        lattice=" ".join(words),
        reflection_count=int(count) if count.isdigit() else 0,
    )


def _before_lists(text: bytes) -> str:
    for mark in _LISTS:
        text = text.split(mark, 1)[0]
    return text.decode("utf-8", errors="replace")


def _value(head: str, key: str) -> str | None:
    for line in head.splitlines():
        if line.startswith(key):
            return line[len(key) :].strip()
    return None


def _best_source(image: str, candidates: list[str]) -> str | None:
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    shared = [_shared_end(image, source) for source in candidates]
    if shared.count(max(shared)) > 1:
        raise BadStream(
            f"the stream's image '{image}' may be any of {', '.join(candidates)}: "
            "put the run's folder into the stream's image names, or ingest the runs one by one, each with its stream"
        )
    return candidates[shared.index(max(shared))]


def _shared_end(one: str, other: str) -> int:
    count = 0
    for a, b in zip(reversed(PurePosixPath(one).parts), reversed(Path(other).parts), strict=False):
        if a != b:
            break
        count += 1
    return count
