import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffdask.errors import BadParameter
from diffdask.planning import align, blocks_of, blocks_to_write, pieces_of, runs_of, tiles_of, to_do

counts = st.integers(0, 300)
sizes = st.integers(1, 40)


def frames_in(blocks):
    return [frame for start, stop in blocks for frame in range(start, stop)]


@given(counts, sizes)
def test_blocks_hold_every_frame_once_and_in_order(count, size):
    assert frames_in(blocks_of(count, size)) == list(range(count))


@given(counts, counts, sizes)
def test_writing_covers_every_new_frame_in_whole_shards(old, new, shard):
    blocks = blocks_to_write(old, old + new, shard)
    assert set(range(old, old + new)) <= set(frames_in(blocks))
    assert all(start % shard == 0 and (stop % shard == 0 or stop == old + new) for start, stop in blocks)
    assert len(frames_in(blocks)) < new + shard, "at most one shard is written again"


@given(counts, sizes)
def test_no_new_frame_means_nothing_to_write(count, shard):
    assert blocks_to_write(count, count, shard) == []


@given(counts, counts, sizes)
def test_no_two_blocks_share_a_shard(old, new, shard):
    shards = [start // shard for start, _ in blocks_to_write(old, old + new, shard)]
    assert len(shards) == len(set(shards))


@given(counts, sizes, st.data())
def test_to_do_and_done_are_all_blocks(count, size, data):
    blocks = blocks_of(count, size)
    done = set(data.draw(st.lists(st.sampled_from(blocks), unique=True))) if blocks else set()
    assert sorted([*to_do(blocks, done), *done]) == blocks


@given(counts, sizes)
def test_aligning_rounds_up_by_less_than_a_unit(size, unit):
    aligned = align(size, unit)
    assert aligned % unit == 0
    assert max(size, 1) <= aligned < max(size, 1) + unit


@given(st.lists(st.integers(1, 20), min_size=1, max_size=15), st.data())
def test_pieces_put_together_are_the_block(lengths, data):
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    segments = list(zip([0, *ends[:-1]], ends, strict=True))
    start = data.draw(st.integers(0, ends[-1]))
    stop = data.draw(st.integers(start, ends[-1]))
    pieces = list(pieces_of((start, stop), segments))
    assert frames_in([piece for _, piece in pieces]) == list(range(start, stop))
    assert all(segments[n][0] <= a < b <= segments[n][1] for n, (a, b) in pieces)


@given(st.lists(st.integers(0, 30), max_size=40))
def test_runs_put_together_are_the_sequence(numbers):
    runs = runs_of(numbers)
    assert frames_in(runs) == list(range(len(numbers)))
    assert all(numbers[a:b] == list(range(numbers[a], numbers[a] + b - a)) for a, b in runs)
    assert all(numbers[b] != numbers[b - 1] + 1 for _, b in runs[:-1])


def test_a_block_without_frames_is_refused():
    with pytest.raises(BadParameter, match="at least one frame, got 0"):
        blocks_of(10, 0)


@given(st.integers(0, 40), sizes)
def test_tiles_hold_every_pair_once(count, side):
    pairs = []
    for rows, columns in tiles_of(count, side):
        found = [(i, j) for i in range(*rows) for j in range(*columns)]
        assert len(found) <= side**2
        pairs += [(i, j) for i, j in found if i < j] if rows == columns else found
    assert sorted(pairs) == [(i, j) for i in range(count) for j in range(i + 1, count)]
