import pytest

from diffdask.cluster.watched import Watched


def told(done, *, stage="screen", total=100, is_over=False, failed=0, unit="frame"):
    counts = {"total": total, "done": done, "failed": failed, "blocks": total // 10, "blocks_done": done // 10}
    return {"stage": stage, "unit": unit, "is_over": is_over, **counts}


def test_rate_and_time_left_follow_what_the_driver_tells():
    watched = Watched()
    for second in range(6):
        watched.tell_stage("run", told(10 * second), now=1000.0 + second)
    stage = watched.current
    assert (stage.done, stage.total, stage.blocks_done, stage.blocks) == (50, 100, 5, 10)
    assert stage.rate == pytest.approx(10.0)
    assert stage.seconds_left == pytest.approx(5.0)
    watched.tell_stage("run", told(100, is_over=True), now=1010.0)
    assert watched.current.seconds_left == 0.0


def test_what_was_done_before_this_run_does_not_make_it_faster():
    watched = Watched()
    for second in range(4):
        watched.tell_stage("run", told(80 + second), now=float(second))
    assert watched.current.rate == pytest.approx(1.0)


def test_what_workers_find_is_added_to_what_was_known_and_told_to_the_driver():
    watched = Watched()
    watched.tell_counts("run", {"hits": 7, "damaged": 1})
    watched.add({"hits": 2})
    watched.add({"hits": 1, "damaged": 3})
    assert watched.tell_stage("run", told(10, failed=10)) == {"hits": 10, "failures": 14}
    watched.tell_counts("run", {"hits": 12, "diffuse": None})
    assert (watched.hits, watched.diffuse) == (12, None)


def test_stages_come_one_after_the_other_and_another_run_takes_the_place_of_all():
    watched = Watched()
    watched.tell_stage("one", told(100, is_over=True))
    watched.tell_stage("one", told(3, stage="hits", unit="hit"))
    assert list(watched.stages) == ["screen", "hits"]
    assert watched.current.name == "hits"
    watched.add({"hits": 5})
    watched.tell_stage("other", told(0, stage="orient"))
    assert list(watched.stages) == ["orient"]
    assert watched.hits is None


def test_a_stage_that_is_done_once_more_begins_anew():
    watched = Watched()
    watched.tell_stage("run", told(100, is_over=True), now=0.0)
    watched.tell_stage("run", told(0, total=200), now=50.0)
    assert [sample.done for sample in watched.current.samples] == [0]
    assert not watched.current.is_over


def test_a_year_of_history_takes_no_more_than_a_thousand_samples():
    watched = Watched()
    for second in range(5000):
        watched.tell_stage("run", told(second, total=5000), now=float(second))
    samples = watched.current.samples
    assert len(samples) <= 1000
    assert (samples[0].done, samples[-1].done) == (0, 4999)
    assert [sample.time for sample in samples] == sorted(sample.time for sample in samples)
    assert samples[-1].rate == pytest.approx(1.0)
