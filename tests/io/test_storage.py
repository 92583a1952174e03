"""A folder and object storage keep the same laws."""

import functools
import os
import pickle
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import zarr
from obstore.exceptions import BaseError, PermissionDeniedError

from diffdask.errors import BadStorage, LostStorage
from diffdask.io import object_storage
from diffdask.io.objects import telling
from diffdask.io.storage import storage_at

from ..s3_here import KEY, SECRET, Proxy, assert_no_secret


@pytest.fixture(params=["folder", "s3"])
def storage(request, tmp_path):
    """An empty place of either kind."""
    return storage_at(tmp_path / "store" if request.param == "folder" else request.getfixturevalue("bucket") + "/store")


def names(storage, folder):
    return {entry.name for entry in storage.list_files(folder)}


def test_a_text_is_read_as_it_was_last_written(storage):
    storage.write_text("marks/screen/0-8", "")
    storage.write_text("marks/screen/8-16", "damaged: å")
    storage.write_text("marks/screen/8-16", "damaged: 8")
    assert storage.read_text("marks/screen/0-8") == ""
    assert storage.read_text("marks/screen/8-16") == "damaged: 8"
    assert storage.exists("marks/screen/0-8")
    assert not storage.exists("marks/screen/16-24")
    assert not storage.exists("marks/screen/0-80")
    with pytest.raises(FileNotFoundError):
        storage.read_text("marks/screen/16-24")


def test_a_file_that_is_opened_gives_its_bytes_from_wherever_they_are_asked_for(storage):
    storage.write_text("blocks/0-8", "0123456789")
    with storage.open_file("blocks/0-8") as file:
        assert file.seek(-3, os.SEEK_END) == 7
        assert file.read() == b"789"
        file.seek(2)
        assert file.read(3) == b"234"
    with pytest.raises(FileNotFoundError):
        storage.open_file("blocks/8-16")


def test_a_place_is_empty_until_something_is_there(storage):
    assert storage.is_empty()
    storage.write_text("a/b", "c")
    assert not storage.is_empty()


def test_files_are_listed_with_size_and_time_and_those_of_other_folders_are_not(storage):
    assert names(storage, "marks/screen") == set()
    assert storage.list_folders("marks") == []
    for name in ("marks/screen/0-8", "marks/screen/8-16", "marks/screen/quarantine/16-24", "marks/screened/0-8"):
        storage.write_text(name, "x" * 7)
    assert names(storage, "marks/screen") == {"0-8", "8-16"}
    assert storage.list_folders("marks") == ["screen", "screened"]
    assert {entry.size for entry in storage.list_files("marks/screen")} == {7}
    assert all(abs(entry.modified - time.time()) < 60 for entry in storage.list_files("marks/screen"))
    storage.write_text("stamp.json", "{}")
    assert names(storage, "") == {"stamp.json"}


def test_more_files_than_a_page_of_s3_has_are_all_listed_and_all_removed(storage):
    expected = {f"{number}-{number + 1}" for number in range(1100)}
    threads = [
        threading.Thread(target=lambda some: [storage.write_text(f"marks/screen/{n}", "") for n in some], args=(part,))
        for part in np.array_split(sorted(expected), 8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(storage, "marks/screen") == expected
    storage.remove("marks/screen")
    assert names(storage, "marks/screen") == set()


def test_deleting_and_removing_leave_the_rest_and_do_not_mind_what_is_absent(storage):
    for name in ("a/1", "a/2", "a/b/3", "ab/4"):
        storage.write_text(name, name)
    storage.delete(["a/1", "a/nothing"])
    assert names(storage, "a") == {"2"}
    storage.remove("a")
    storage.remove("absent")
    storage.delete([])
    assert names(storage, "a") == names(storage, "a/b") == set()
    assert storage.read_text("ab/4") == "ab/4"


def test_a_folder_that_is_moved_is_whole_and_no_longer_where_it_was(storage):
    for name in (".group.partial/zarr.json", ".group.partial/one/c/0", ".group.partial/one/zarr.json"):
        storage.write_text(name, name)
    storage.rename(".group.partial", "group")
    assert names(storage, "group") == {"zarr.json"}
    assert storage.read_text("group/one/c/0") == ".group.partial/one/c/0"
    assert names(storage, ".group.partial") == names(storage, ".group.partial/one") == set()


def test_a_stamp_changes_when_the_file_does_and_not_else(storage):
    storage.write_text("zarr.json", "one")
    before = storage.stamp("zarr.json")
    assert storage.stamp("zarr.json") == before
    storage.write_text("zarr.json", "two")
    assert storage.stamp("zarr.json") != before
    with pytest.raises(FileNotFoundError):
        storage.stamp("absent")


def test_of_many_that_write_what_must_be_new_one_is_told_that_it_did(storage):
    told = {}
    start = threading.Barrier(6)

    def write(number):
        start.wait()
        told[number] = storage.write_new("lock", f"writer {number}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(told.values()) == 1
    assert storage.read_text("lock") == f"writer {next(number for number in told if told[number])}"
    assert not storage.write_new("lock", "late")


def test_zarr_reads_what_zarr_wrote_there(storage):
    values = np.random.default_rng(1).integers(0, 99, (10, 4, 3)).astype("int16")
    root = zarr.open_group(storage.zarr_store(), mode="w-", zarr_format=3, attributes={"kind": "test"})
    array = root.create_array("adu", shape=values.shape, chunks=(1, 4, 3), shards=(4, 4, 3), dtype="int16")
    array[...] = values
    opened = zarr.open_group(storage.zarr_store(), mode="r", use_consolidated=False)
    assert opened.attrs["kind"] == "test"
    np.testing.assert_array_equal(opened["adu"][...], values)
    np.testing.assert_array_equal(opened["adu"][5], values[5])
    assert storage.exists("zarr.json")
    again = pickle.loads(pickle.dumps(opened["adu"]))
    np.testing.assert_array_equal(again[2:7], values[2:7])
    with pytest.raises(FileExistsError):
        zarr.open_group(storage.zarr_store(), mode="w-", zarr_format=3)


def test_nothing_is_left_of_a_text_that_could_not_be_written(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        storage_at(tmp_path).write_text("marks/0-8", "text")
    assert list((tmp_path / "marks").iterdir()) == []


# object storage alone --------------------------------------------------------------------------------------


def test_an_object_that_is_held_is_asked_for_once(bucket, ill_s3):
    storage = storage_at(f"{bucket}/held")
    values = np.arange(8 * 6, dtype="int16").reshape(8, 6)
    root = zarr.open_group(storage.zarr_store(), mode="w-", zarr_format=3)
    root.create_array("adu", shape=(8, 6), chunks=(1, 6), shards=(8, 6), dtype="int16")[...] = values
    array = zarr.open_group(storage.zarr_store(), mode="r", use_consolidated=False)["adu"]
    ill_s3.requests.clear()
    with storage.holding("adu/c/0/0") as is_there, storage.holding("adu/c/0/0") as is_still_there:
        assert is_there is is_still_there is True
        np.testing.assert_array_equal(array[2:4], values[2:4])
        np.testing.assert_array_equal(array[7], values[7])
        np.testing.assert_array_equal(array[...], values)
    assert len(ill_s3.requests) == 1
    np.testing.assert_array_equal(array[7], values[7])
    assert len(ill_s3.requests) > 1
    with storage.holding("adu/c/9/0") as is_there:
        assert is_there is False


def test_a_file_that_is_held_says_whether_it_is_there(tmp_path):
    storage_at(tmp_path).write_text("shard", "x")
    for name in ("shard", "lost"):
        with storage_at(tmp_path).holding(name) as is_there:
            assert is_there == (name == "shard")


def test_s3_that_says_503_for_a_while_is_asked_again(bucket, ill_s3):
    storage = storage_at(f"{bucket}/slow")
    ill_s3.refuse_for(1.0)
    storage.write_text("mark", "done")
    ill_s3.refuse_for(1.0)
    assert storage.read_text("mark") == "done"
    assert ill_s3.refused > 2


def test_s3_that_says_503_for_too_long_is_lost_as_a_disk_would_be(bucket, ill_s3, monkeypatch):
    monkeypatch.setattr(object_storage, "PATIENCE", 0.5)
    storage = storage_at(f"{bucket}/lost")
    array = zarr.open_group(storage.zarr_store(), mode="w-").create_array("one", shape=4, chunks=2, dtype="int16")
    ill_s3.refuse_for(30.0)
    deeds = {
        "write": lambda: storage.write_text("mark", "done"),
        "list": lambda: list(storage.list_files("marks")),
        "zarr writes": lambda: array.__setitem__(slice(0, 2), 1),
        "zarr reads": lambda: array[:],
    }
    for deed in deeds.values():
        with pytest.raises(LostStorage, match="SlowDown") as caught:
            deed()
        assert isinstance(caught.value, OSError)
        assert_no_secret(str(caught.value))


def test_a_bucket_that_is_not_there_is_told_at_once(bucket):
    with pytest.raises(BadStorage, match="no such bucket: 's3://absent'"):
        storage_at("s3://absent/x")


def test_an_endpoint_where_nobody_is_is_told_soon(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(object_storage, "FIRST_PATIENCE", 0.3)
    with pytest.raises(BadStorage, match="see to AWS_ENDPOINT_URL"):
        storage_at("s3://tests/x")


def test_plain_http_is_refused_unless_allowed(bucket, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(BadStorage, match="AWS_ALLOW_HTTP=true"):
        storage_at("s3://tests/x")


def test_what_s3_answers_to_a_wrong_key_is_told_without_the_key(bucket, monkeypatch):
    told = (
        f"Error performing GET http://me:{SECRET}@s3/x?X-Amz-Credential={KEY} in 1ms - Server returned non-2xx status "
    )
    told += (
        f"code: 403 Forbidden: <?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>{KEY}</Error>"
    )
    with (
        pytest.raises(BadStorage, match=r"403 Forbidden, InvalidAccessKeyId.*AWS_SECRET_ACCESS_KEY") as caught,
        telling("s3://tests/x"),
    ):
        raise PermissionDeniedError(told)
    assert_no_secret(str(caught.value))
    assert caught.value.__suppress_context__  # a traceback of it, which is kept with blocks that fail, has nothing more
    with pytest.raises(LostStorage) as caught, telling("s3://tests/x"):
        raise BaseError(told.split("Server")[0] + f"HTTP error\n\nDebug source:\n{KEY}")
    assert_no_secret(str(caught.value))


def test_errors_of_storage_come_back_from_other_processes(bucket):
    for error in (BadStorage("refuses"), LostStorage("is lost")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.errno) == (type(error), str(error), error.errno)


def test_no_credentials_are_in_what_workers_are_sent(bucket):
    storage = storage_at(f"{bucket}/sent")
    root = zarr.open_group(storage.zarr_store(), mode="w-")
    array = root.create_array("one", shape=4, chunks=2, dtype="int16")
    for sent in (pickle.dumps(array), pickle.dumps(storage.zarr_store()), repr(array), repr(storage.zarr_store())):
        assert_no_secret(sent if isinstance(sent, str) else sent.decode("latin1"))


def test_files_of_a_web_server_are_read(tmp_path):
    (tmp_path / "frames.zarr").mkdir()
    (tmp_path / "frames.zarr" / "zarr.json").write_text("{}")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        place = storage_at(f"http://127.0.0.1:{server.server_port}/frames.zarr")
        assert place.read_text("zarr.json") == "{}"
        assert place.exists("zarr.json")
        assert not place.exists("absent")
        assert place.stamp("zarr.json") == place.stamp("zarr.json")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def ill_s3(bucket, s3, monkeypatch):
    """S3 behind a proxy that can be made ill."""
    with Proxy(s3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy
