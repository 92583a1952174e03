import os

import pytest

from diffdask.io.marks import (
    is_marked,
    mark_block,
    marked_blocks,
    marked_groups,
    noted_blocks,
    quarantine_block,
    quarantined_blocks,
    read_note,
    release_blocks,
    remove_marks,
    timed_blocks,
    unmark_blocks,
)
from diffdask.version import __version__


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


def test_only_blocks_with_something_to_tell_are_read(tmp_path):
    mark_block(tmp_path, "screen", (8, 16), note="slow")
    mark_block(tmp_path, "screen", (16, 24))
    mark_block(tmp_path, "screen", (0, 8), note="slower")
    assert list(noted_blocks(tmp_path, "screen").items()) == [((0, 8), "slower"), ((8, 16), "slow")]


def test_a_block_is_done_until_its_mark_is_taken_away(tmp_path):
    assert not is_marked(tmp_path, "screen", (0, 8))
    mark_block(tmp_path, "screen", (0, 8))
    assert is_marked(tmp_path, "screen", (0, 8))
    assert not is_marked(tmp_path, "hits", (0, 8))
    unmark_blocks(tmp_path, "screen", [(0, 8), (8, 16)])
    assert not is_marked(tmp_path, "screen", (0, 8))


def test_a_block_in_quarantine_is_not_done_and_says_why_until_it_is_released(tmp_path):
    mark_block(tmp_path, "screen", (0, 8))
    quarantine_block(tmp_path, "screen", (8, 16), reason="took down its worker", details="a\nb")
    assert marked_blocks(tmp_path, "screen") == {(0, 8)}
    (record,) = quarantined_blocks(tmp_path, "screen").values()
    assert record["reason"] == "took down its worker"
    assert record["details"] == "a\nb"
    assert record["version"] == __version__
    release_blocks(tmp_path, "screen", [(8, 16), (16, 24)])
    assert quarantined_blocks(tmp_path, "screen") == {}


def test_forgetting_a_group_forgets_its_quarantine(tmp_path):
    quarantine_block(tmp_path, "screen", (8, 16), reason="x")
    remove_marks(tmp_path, "screen")
    assert quarantined_blocks(tmp_path, "screen") == {}


def test_a_mark_that_cannot_be_put_in_place_leaves_nothing(tmp_path):
    (tmp_path / "marks" / "screen" / "0-8").mkdir(parents=True)
    with pytest.raises(OSError, match="0-8"):
        mark_block(tmp_path, "screen", (0, 8))
    assert [entry.name for entry in (tmp_path / "marks" / "screen").iterdir()] == ["0-8"]


def test_blocks_come_in_the_order_in_which_they_were_done(tmp_path):
    assert timed_blocks(tmp_path, "screen") == []
    assert marked_groups(tmp_path) == []
    for second, block in ((30, (0, 8)), (10, (16, 24)), (20, (8, 16))):
        mark_block(tmp_path, "screen", block)
        os.utime(tmp_path / "marks" / "screen" / f"{block[0]}-{block[1]}", (second, second))
    mark_block(tmp_path, "hits", (0, 1))
    assert timed_blocks(tmp_path, "screen") == [(10.0, (16, 24)), (20.0, (8, 16)), (30.0, (0, 8))]
    assert marked_groups(tmp_path) == ["hits", "screen"]
