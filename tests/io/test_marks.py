import pytest

from diffdask.io.marks import mark_block, marked_blocks, read_note, remove_marks


def test_what_was_marked_is_marked_and_nothing_else(tmp_path):
    assert marked_blocks(tmp_path, "screen") == set()
    mark_block(tmp_path, "screen", (0, 8))
    mark_block(tmp_path, "screen", (8, 11), note="slow")
    mark_block(tmp_path, "hits", (3, 4))
    assert marked_blocks(tmp_path, "screen") == {(0, 8), (8, 11)}
    assert marked_blocks(tmp_path, "hits") == {(3, 4)}
    assert read_note(tmp_path, "screen", (8, 11)) == "slow"
    assert read_note(tmp_path, "screen", (0, 8)) == ""


def test_marking_again_changes_the_note_only(tmp_path):
    mark_block(tmp_path, "screen", (0, 8), note="one")
    mark_block(tmp_path, "screen", (0, 8), note="two")
    assert marked_blocks(tmp_path, "screen") == {(0, 8)}
    assert read_note(tmp_path, "screen", (0, 8)) == "two"


def test_forgetting_a_group_leaves_the_others(tmp_path):
    mark_block(tmp_path, "screen", (0, 8))
    mark_block(tmp_path, "hits", (0, 8))
    remove_marks(tmp_path, "screen")
    remove_marks(tmp_path, "absent")
    assert marked_blocks(tmp_path, "screen") == set()
    assert marked_blocks(tmp_path, "hits") == {(0, 8)}


@pytest.mark.parametrize("name", [".0-8.77", "0-8.tmp", "x", "8", "-0-8"])
def test_a_mark_that_was_not_put_in_place_does_not_count(tmp_path, name):
    mark_block(tmp_path, "screen", (8, 16))
    (tmp_path / "marks" / "screen" / name).write_text("")
    assert marked_blocks(tmp_path, "screen") == {(8, 16)}


def test_a_mark_appears_whole(tmp_path):
    mark_block(tmp_path, "screen", (0, 8), note="x" * 100)
    assert [entry.name for entry in (tmp_path / "marks" / "screen").iterdir()] == ["0-8"]
