"""Pickled dicts of arrays, such as the ``vgg16.npy`` of the TensorFlow ports, read without running anything in them.

A pickle is a program: it may call whatever Python can import. Here it is given
four names only, and behind each of them stands not NumPy but a recorder of this
module. Arrays are then made from what was recorded: bytes, a shape and a type
of plain numbers.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from diffdask.errors import BadWeights

#: Types of numbers that an array may have.
_NUMBERS = ("f2", "f4", "f8")


def read_pickled_arrays(path: str | Path) -> dict[str, Any]:
    """Read an ``.npy`` file that holds one pickled dict, as ``numpy.save(path, dict)`` writes it.

    Returns
    -------
    dict
        Text to whatever the dict holds: arrays of floats, text, numbers, and lists, tuples and dicts of them.

    Raises
    ------
    BadWeights
        If the file is no such file, is truncated, or asks for anything but arrays; nothing in it is executed.
    """
    try:
        with open(path, "rb") as file:
            _check_header(path, file)
            wrapped = _restore(_Unpickler(file, encoding="latin1").load(), {})
    except _Forbidden as error:
        raise BadWeights(
            f"'{path}' asks Python for '{error}', which no array needs: it was refused and nothing was executed; "
            "do not load this file with anything else"
        ) from error
    # a damaged pickle may raise anything that its operations can
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BadWeights(f"'{path}' is truncated or damaged ({error}); fetch it again") from error
    except (OverflowError, MemoryError, RecursionError) as error:
        raise BadWeights(f"'{path}' is damaged ({type(error).__name__}); fetch it again") from error
    content = wrapped[0] if isinstance(wrapped, list) and len(wrapped) == 1 else None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise BadWeights(f"'{path}' holds no dict of arrays with names")
    return content


def _check_header(path: str | Path, file: BinaryIO) -> None:
    """Go past the header of an .npy file, which must say: one Python object."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise BadWeights(f"'{path}' is an .npy file of version {version}, expected 1.0 or 2.0")
    shape, _, dtype = readers[version](file)
    if shape != () or dtype != np.dtype(object):
        raise BadWeights(f"'{path}' holds an array of {dtype} and shape {shape}, expected one dict of arrays")


class _Forbidden(Exception):
    """A pickle asked for a name that it may not have."""


class _Recorder:
    """Keeps what a pickle says about an object, and can do nothing."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *arguments: Any) -> _Recorder:
        recorder = object.__new__(cls)
        recorder.arguments = arguments
        return recorder

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Recorder):
    """``numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")``; its state is what ``ndarray.__reduce__`` gives."""

    def restore(self) -> Any:
        _, shape, dtype, is_fortran, data = self.state
        if isinstance(data, list):  # an array of objects: the dict itself comes in one without dims
            return data
        if isinstance(data, str):  # bytes of Python 2
            data = data.encode("latin1")
        elif isinstance(data, _Latin1):
            data = data.restore()
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise ValueError("an array that is not made of numbers")
        flat = np.frombuffer(data, dtype=dtype.restore())
        return flat.reshape(shape, order="F" if is_fortran else "C")


class _Dtype(_Recorder):
    """``numpy.dtype("f4", False, True)``; its state begins with a version and the byte order."""

    def restore(self) -> np.dtype:
        kind = str(self.arguments[0])
        order = str(self.state[1])
        if kind not in _NUMBERS or order not in ("<", ">", "="):
            raise ValueError(f"an array of type {kind!r} and byte order {order!r}, expected floats")
        return np.dtype(order + kind)


class _Latin1(_Recorder):
    """``_codecs.encode(text, "latin1")``: bytes in a pickle of an old protocol."""

    def restore(self) -> bytes:
        text, encoding = self.arguments
        if encoding != "latin1":
            raise ValueError(f"bytes written as {encoding!r}")
        return text.encode("latin1")


class _Kind(_Recorder):
    """``numpy.ndarray``, named as an argument only."""


#: All that a pickle may name. Classes, and none of them NumPy's: NumPy's own constructors trust what they are told.
_ALLOWED: dict[tuple[str, str], type[_Recorder]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Kind,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Latin1,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Forbidden(f"{module}.{name}") from None


def _restore(value: Any, known: dict[int, Any]) -> Any:
    """What was recorded, as arrays; containers are gone through, each once, however often it is referred to."""
    if id(value) not in known:
        known[id(value)] = _restore_anew(value, known)
    return known[id(value)]


def _restore_anew(value: Any, known: dict[int, Any]) -> Any:
    if isinstance(value, (_Array, _Latin1)):
        restored = value.restore()
        return _restore(restored, known) if isinstance(restored, list) else restored
    if isinstance(value, dict):
        return {_restore(key, known): _restore(one, known) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_restore(one, known) for one in value]
    if isinstance(value, (str, bytes, int, float, type(None))):
        return value
    raise ValueError(f"a {type(value).__name__} where an array or a name belongs")
