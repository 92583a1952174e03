"""Paths of folders and URLs of object storage."""

import pytest

from diffdask.errors import BadParameter
from diffdask.io.paths import (
    absolute,
    as_store,
    at_parent,
    is_url,
    join,
    local_path,
    name_of,
    parent,
    same_place,
    suffix_of,
    way_from_parent,
    with_suffix,
)
from diffdask.io.storage import storage_at

from ..s3_here import KEY, SECRET, assert_no_secret


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("s3://bucket/a/frames.zarr", "s3://bucket/a/frames.zarr"),
        ("s3://bucket//a/./frames.zarr//", "s3://bucket/a/frames.zarr"),
        ("s3://bucket", "s3://bucket"),
        ("gs://bucket/a", "gs://bucket/a"),
        ("https://host.example:8443/a/b/", "https://host.example:8443/a/b"),
    ],
)
def test_a_url_is_written_in_one_way(given, written):
    assert as_store(given) == written == absolute(given)
    assert is_url(as_store(given))


@pytest.mark.parametrize("path", ["results.zarr", "runs/../results.zarr", "/data/s3:/x", ".", "C:\\data\\x"])
def test_a_folder_stays_what_it_was(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_url(path)
    assert str(as_store(path)) == str(tmp_path.__class__(path))
    assert absolute(path) == str(tmp_path.__class__(path).absolute())


def test_a_file_url_is_a_folder(tmp_path):
    url = (tmp_path / "a b").as_uri()
    assert as_store(url) == tmp_path / "a b"
    storage_at(url).write_text("x", "y")
    assert (tmp_path / "a b" / "x").read_text() == "y"


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{KEY}:{SECRET.replace('/', '')}@bucket/x",
        f"https://host/x?X-Amz-Signature={SECRET}",
        f"s3://bucket/x#{KEY}",
        "s3:///x",
        "ftp://host/x",
        "s3://bucket/../x",
    ],
)
def test_a_url_that_will_not_do_is_refused_and_no_secret_repeated(url):
    for use in (as_store, absolute, storage_at, parent):
        with pytest.raises(BadParameter) as caught:
            use(url)
        assert_no_secret(str(caught.value))


def test_names_within_a_place_and_its_parent():
    assert join("s3://bucket/a", "b", "c") == "s3://bucket/a/b/c"
    assert parent("s3://bucket/a/b.zarr") == "s3://bucket/a"
    assert parent("s3://bucket/a") == parent("s3://bucket") == "s3://bucket"
    assert name_of("s3://bucket/a/b.zarr") == name_of("/data/b.zarr") == "b.zarr"
    assert same_place("s3://bucket/a/", "s3://bucket//a")
    assert not same_place("s3://bucket/a", "/bucket/a")
    assert same_place("a/../b", "b")


def test_what_can_only_be_in_a_folder_says_so():
    with pytest.raises(BadParameter, match=r"the map can only be on this machine, not at 's3://bucket/map\.zarr'"):
        local_path("s3://bucket/map.zarr", what="the map")


@pytest.mark.parametrize(
    ("frames", "results", "way", "moved", "found"),
    [
        ("s3://b/run/f.zarr", "s3://b/run/r.zarr", "f.zarr", "s3://c/new/r.zarr", "s3://c/new/f.zarr"),
        ("s3://b/raw/f.zarr", "s3://b/run/r.zarr", "../raw/f.zarr", "s3://c/x/run/r.zarr", "s3://c/x/raw/f.zarr"),
        ("s3://b/f.zarr", "s3://other/r.zarr", "s3://b/f.zarr", "s3://c/r.zarr", "s3://b/f.zarr"),
        ("gs://b/f.zarr", "s3://b/r.zarr", "gs://b/f.zarr", "s3://c/r.zarr", "gs://b/f.zarr"),
    ],
)
def test_the_way_to_the_frames_leads_there_from_where_both_were_moved(frames, results, way, moved, found):
    assert way_from_parent(frames, results) == way
    assert at_parent(results, way) == frames
    assert at_parent(moved, way) == found


def test_the_suffix_is_that_of_the_name():
    assert suffix_of("s3://bucket.csv/a.b/catalogue.parquet") == suffix_of("a.b/c.parquet") == ".parquet"
    assert suffix_of("s3://bucket/a.b/catalogue") == ""


@pytest.mark.parametrize("folder", ["s3://bucket/a.b", "/data/a.b"])
def test_what_lies_beside_under_another_suffix_is_in_the_same_folder(folder):
    for name in ("map.zarr", "map"):
        assert str(with_suffix(f"{folder}/{name}", ".ccp4")) == f"{folder}/map.ccp4"
