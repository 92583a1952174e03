"""Labels: every way to name a frame, and every way to spoil the file."""

from pathlib import Path

import pytest

from diffdask.errors import BadLabels, BadStorage
from diffdask.io.labels import read_labels
from diffdask.io.storage import storage_at

FRAME_IDS = [f"r{run:04d}/{event}" for run in (1, 2) for event in range(3)]


def write(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_a_number_and_a_frame_id_name_the_same_frame(tmp_path: Path) -> None:
    by_number = read_labels(write(tmp_path, "frame,label\n4,diffuse\n0,blank\n"), FRAME_IDS)
    by_id = read_labels(write(tmp_path, "label,note,frame\nblank,x,r0001/0\ndiffuse,y,r0002/1\n"), FRAME_IDS)
    assert by_number.equals(by_id)
    assert by_number.to_dict() == {0: "blank", 4: "diffuse"}
    assert by_number.index.name == "frame"


def test_the_order_of_rows_and_saying_it_twice_change_nothing(tmp_path: Path) -> None:
    once = read_labels(write(tmp_path, "frame,label\n1,diffuse\n2,non-diffuse\n"), FRAME_IDS)
    twice = read_labels(write(tmp_path, "frame,label\n2,non-diffuse\n1,diffuse\n2,non-diffuse\n"), FRAME_IDS)
    assert once.equals(twice)


def test_a_byte_order_mark_blanks_and_rows_without_a_label_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffframe, label\n0, diffuse \n\n1,\n2\n")
    assert read_labels(path, FRAME_IDS).to_dict() == {0: "diffuse"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("frame,class\n0,diffuse\n", r"no column 'label'; it has: frame, class"),
        ("number,label\n0,diffuse\n", r"no column 'frame'"),
        ("", "it has: no columns"),
        ("frame,label\n0,diffuse\n1,difuse\n", r"line 3: unknown label 'difuse'; did you mean 'diffuse'"),
        ("frame,label\n6,diffuse\n", "line 2: no frame 6; the store has the frames 0 to 5"),
        ("frame,label\n-1,diffuse\n", "no frame -1"),
        ("frame,label\nr9/0,diffuse\n", r"line 2: unknown frame_id 'r9/0'; .*'r0001/0'"),
        ("frame,label\n,diffuse\n", "a label without a frame"),
        ("frame,label\n0,diffuse\nr0001/0,blank\n", "line 3: frame 0 is labelled 'blank', but 'diffuse' before"),
        ("frame,label\n", "holds no label"),
        ("frame,label\n0,\n", "holds no label"),
    ],
)
def test_each_way_to_spoil_the_labels_has_its_own_error(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadLabels, match=told):
        read_labels(write(tmp_path, text), FRAME_IDS)


def test_an_absent_file_and_a_picture_are_no_labels(tmp_path: Path) -> None:
    with pytest.raises(BadLabels, match="no labels at"):
        read_labels(tmp_path / "absent.csv", FRAME_IDS)
    path = tmp_path / "labels.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\x00")
    with pytest.raises(BadLabels, match="no CSV text"):
        read_labels(path, FRAME_IDS)


def test_the_labels_of_the_shared_campaign_are_as_its_description_says(shared: Path) -> None:
    labels = read_labels(shared / "cspad_sim_a" / "A_dev_labels.csv", [str(number) for number in range(120)])
    assert labels.value_counts().to_dict() == {"diffuse": 52, "non-diffuse": 52, "blank": 16}


def test_labels_in_a_bucket_are_those_of_a_file(bucket: str) -> None:
    storage_at(bucket).write_text("labels.csv", "\ufeffframe,label\n4,diffuse\nr0001/0,blank\n")
    assert read_labels(f"{bucket}/labels.csv", FRAME_IDS).to_dict() == {0: "blank", 4: "diffuse"}
    with pytest.raises(BadLabels, match=r"no labels at 's3://.*/other\.csv': give a CSV"):
        read_labels(f"{bucket}/other.csv", FRAME_IDS)
    with pytest.raises(BadStorage, match="no such bucket"):
        read_labels("s3://absent/labels.csv", FRAME_IDS)
