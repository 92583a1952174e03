"""kill -9 of a worker, of all workers, of the scheduler, of the driver; early, in the middle and late."""

import signal

import pytest

from diffdask.cluster import connect
from diffdask.errors import LostScheduler

pytestmark = pytest.mark.faults

#: Share of the blocks that is marked when it happens.
POINTS = pytest.mark.parametrize("share", [0.01, 0.4, 0.75], ids=["early", "middle", "late"])


@POINTS
@pytest.mark.parametrize("victims", ["worker", "all_workers"])
def test_a_run_whose_workers_are_killed_ends_as_if_nothing_had_happened(campaign, cluster, tmp_path, share, victims):
    results = tmp_path / "results.zarr"
    with connect(cluster.address) as client:
        client.wait_for_workers(2, timeout=60)
        killer = campaign.at_marks(results, share, getattr(cluster, f"kill_{victims}"))
        campaign.screen(results, on=client)
    killer.wait(60)
    assert 0 < len(killer.before) < campaign.blocks
    campaign.assert_kept(results, killer.before)
    campaign.assert_undisturbed(results)


@POINTS
def test_a_run_whose_scheduler_is_killed_says_so_and_goes_on_with_another(campaign, start_cluster, tmp_path, share):
    results, first = tmp_path / "results.zarr", start_cluster()
    with connect(first.address) as client:
        client.wait_for_workers(2, timeout=60)
        killer = campaign.at_marks(results, share, first.kill_scheduler)
        with pytest.raises(LostScheduler, match=r"the scheduler .*every block that is marked is kept.*same command"):
            campaign.screen(results, on=client)
    killer.wait(60)
    assert 0 < len(killer.before) < campaign.blocks
    campaign.screen(results, on="threads")
    campaign.assert_kept(results, killer.before)
    campaign.assert_undisturbed(results)


@POINTS
def test_a_run_whose_driver_is_killed_goes_on_where_it_stopped(campaign, cluster, drive, tmp_path, share):
    results = tmp_path / "results.zarr"
    with drive(campaign.command(results, cluster.address)) as driver:
        campaign.at_marks(results, share, driver.kill).wait()
        driver.communicate(timeout=60)
        assert driver.returncode == -signal.SIGKILL
    before = campaign.marks(results)
    assert 0 < len(before) < campaign.blocks
    campaign.screen(results, on=cluster.address)
    campaign.assert_kept(results, before)
    campaign.assert_undisturbed(results)


def test_a_command_whose_scheduler_dies_ends_with_an_error_and_says_how_to_go_on(
    campaign, start_cluster, drive, tmp_path
):
    results, cluster = tmp_path / "results.zarr", start_cluster()
    with drive(campaign.command(results, cluster.address), text=True) as driver:
        campaign.at_marks(results, 0.2, cluster.kill_scheduler).wait()
        told = driver.communicate(timeout=120)[1]
        assert driver.returncode == 1
    last = told.splitlines()[-1]
    assert last.startswith("diffdask screen: the scheduler")
    assert last.endswith("which goes on where it stopped")
