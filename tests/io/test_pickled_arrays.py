"""Pickled dicts of arrays: arrays come out, and nothing else happens."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffdask.errors import BadWeights
from diffdask.io.pickled_arrays import read_pickled_arrays

_HEADER = {"descr": "|O", "fortran_order": False, "shape": ()}


def write(path: Path, stream: bytes) -> Path:
    """An .npy file whose object is any pickle."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, _HEADER)
    path.write_bytes(file.getvalue() + stream)
    return path


def as_saved(content: Any, protocol: int = 4) -> bytes:
    """The pickle of an array of one object, as numpy.save makes it."""
    held = np.empty((), dtype=object)
    held[()] = content
    return pickle.dumps(held, protocol=protocol)


CONTENT = {
    "conv1_1": [np.arange(24, dtype="f4").reshape(2, 3, 4), np.ones(4, "f4")],
    "fc6": {"weights": np.asfortranarray(np.arange(6, dtype="f8").reshape(2, 3)), "biases": np.zeros(3, ">f4")},
    "half": (np.full((1, 2), 0.5, "f2"), np.zeros((), "f4")),
}


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    else:
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)


def test_what_numpy_saves_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", CONTENT, allow_pickle=True)
    assert_same(read_pickled_arrays(tmp_path / "a.npy"), CONTENT)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_every_protocol_of_numpy_is_read(tmp_path: Path, protocol: int) -> None:
    assert_same(read_pickled_arrays(write(tmp_path / "a.npy", as_saved(CONTENT, protocol))), CONTENT)


def test_what_python_2_wrote_is_read(tmp_path: Path) -> None:
    """Its strings are bytes, and its NumPy lived elsewhere."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01%scnumpy\ndtype\n"
        b"U\x02%sK\x00K\x01\x87R(K\x03U\x01%sNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK%stb\x89%stb"
    )
    numbers = np.array([1.5, -2.25], "<f4")
    inner = array % (b"K\x02\x85", b"f4", b"<", b"\x00", b"U\x08" + numbers.tobytes())
    outer = array % (b")", b"O8", b"|", b"\x3f", b"]}U\x07conv1_1" + inner + b"sa")
    path = write(tmp_path / "a.npy", b"\x80\x02" + outer + b".")
    reference = np.load(path, allow_pickle=True, encoding="latin1").item()  # made here, a line above
    np.testing.assert_array_equal(reference["conv1_1"], numbers)
    np.testing.assert_array_equal(read_pickled_arrays(path)["conv1_1"], numbers)


class Calls:
    """Pickled as a call of anything."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def attacks(marker: Path) -> dict[str, bytes]:
    touch = f"touch {marker}"
    return {
        "at the top": pickle.dumps(Calls(os.system, touch)),
        "within the dict": as_saved({"conv1_1": [np.ones(3, "f4"), Calls(os.system, touch)]}),
        "as a key": as_saved({Calls(os.system, touch): 1}),
        "by eval": as_saved(Calls(eval, f"open({str(marker)!r}, 'w')")),
        "by exec, protocol 0": pickle.dumps(Calls(exec, f"open({str(marker)!r}, 'w')"), protocol=0),
        "through NumPy": as_saved(Calls(np.save, str(marker), 1)),
        "through getattr": as_saved(Calls(getattr, "a", "upper")),
        "by opening": as_saved(Calls(open, str(marker), "w")),
        "as an instance": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "by a name with dots": b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.dump\x93.",
        "within an allowed module": b"cnumpy\nfromfile\n(S'" + str(marker).encode() + b"'\ntR.",
        "encoding by any codec": b"c_codecs\ndecode\n(S'ab'\nS'hex'\ntR.",
        "by an extension code": b"\x80\x02\x82\x01.",
    }


@pytest.mark.parametrize("way", list(attacks(Path("marker"))))
def test_a_malicious_pickle_is_refused_and_nothing_is_executed(tmp_path: Path, way: str) -> None:
    marker = tmp_path / "executed"
    path = write(tmp_path / "vgg16.npy", attacks(marker)[way])
    with pytest.raises(BadWeights):
        read_pickled_arrays(path)
    assert sorted(os.listdir(tmp_path)) == ["vgg16.npy"]


def test_the_attack_of_these_tests_would_work_on_numpy(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    path = write(tmp_path / "vgg16.npy", attacks(marker)["within the dict"])
    np.load(path, allow_pickle=True)
    assert marker.exists()


def test_a_refusal_says_what_was_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "vgg16.npy", attacks(tmp_path / "executed")["at the top"])
    with pytest.raises(BadWeights, match=r"asks Python for '(posix|nt)\.system'.*nothing was executed"):
        read_pickled_arrays(path)


@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93}\x8c\x01ak\x01sb.",  # state put on a class
        b"cnumpy\nndarray\n(K\x01tR.",  # an object that is no array
        b"cnumpy.core.multiarray\n_reconstruct\n(tR.",  # an array that never got its numbers
        as_saved([1, 2]),
        as_saved({1: np.ones(2)}),
        as_saved({"a": {1, 2}}),
        as_saved({"a": np.arange(3)}),  # integers are no weights
        as_saved({"a": np.array(["text"])}),
        b"]\x94h\x00a.",
        b"]q\x00h\x00a.",  # a list that holds itself
        b"",
    ],
)
def test_what_is_no_dict_of_arrays_of_floats_is_refused(tmp_path: Path, stream: bytes) -> None:
    with pytest.raises(BadWeights):
        read_pickled_arrays(write(tmp_path / "a.npy", stream))


def test_references_upon_references_take_no_time(tmp_path: Path) -> None:
    deep: Any = [1.0]
    for _ in range(60):
        deep = [deep, deep]
    assert len(read_pickled_arrays(write(tmp_path / "a.npy", as_saved({"a": deep})))["a"]) == 2


def test_a_truncated_file_is_told_wherever_it_ends(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.npy", as_saved(CONTENT)).read_bytes()
    for end in range(1, len(whole) - 1, 7):
        (tmp_path / "a.npy").write_bytes(whole[:end])
        with pytest.raises(BadWeights, match=r"a\.npy' is truncated or damaged"):
            read_pickled_arrays(tmp_path / "a.npy")


def test_any_damaged_byte_gives_arrays_or_an_error_of_ours(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.npy", as_saved({"a": [np.ones(2, "f4")]})).read_bytes()
    rng = np.random.default_rng(0)
    for place in range(128, len(whole)):
        damaged = bytearray(whole)
        damaged[place] = rng.integers(256)
        (tmp_path / "a.npy").write_bytes(damaged)
        try:
            read_pickled_arrays(tmp_path / "a.npy")
        except BadWeights:
            continue


def test_an_array_of_numbers_is_no_dict(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(BadWeights, match="an array of float64 and shape"):
        read_pickled_arrays(tmp_path / "a.npy")
