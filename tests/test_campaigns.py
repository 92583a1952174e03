"""The script that ranks simulated campaigns without labels: benchmarks/campaigns.py."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[1] / "benchmarks" / "campaigns.py"
    spec = importlib.util.spec_from_file_location("campaigns", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["campaigns"] = module
    spec.loader.exec_module(module)
    module._TILE = 64  # so that few hits make several tiles
    yield module
    del sys.modules["campaigns"]


@pytest.fixture(scope="module")
def tiny(script):
    """Few strong hits on coarse bins, of a group that is lower than its lattice's."""
    first = next(campaign for campaign in script.plan_campaigns() if campaign.laue_group == "6/m")
    few = {"hits": 150, "runs": 1, "rings": 32, "azimuths": 48}
    return replace(first, **few, diffuse=0.2, strengths=(0.05,), cleanings=(4,))


@pytest.fixture(scope="module")
def measured(script, tiny):
    return script.measure_campaign(tiny)[0]


def test_diffuse_hits_of_a_tiny_campaign_are_found_without_labels(measured) -> None:
    assert measured["pairs"]["area"]["value"] > 0.9
    assert measured["both"]["area"]["value"] > 0.9
    assert measured["bound"]["area"]["value"] > 0.9
    assert measured["both"]["diffuse"] == 30
    assert measured["both"]["non_diffuse"] == 120
    assert measured["pairs"]["diffuse"] < 30, "those that are not indexed have no pairs"


def test_orientations_of_other_hits_tell_nothing(script, tiny, measured) -> None:
    misled = script.measure_campaign(replace(tiny, misindexed=1.0))[0]
    assert 0.3 < misled["pairs"]["area"]["value"] < 0.7
    assert misled["structure"] == measured["structure"], "structure needs no orientation"


def test_figures_are_kept_for_the_very_same_campaign_only(script, tiny, measured, tmp_path) -> None:
    figures = {"campaign": script._plain(tiny), "cpu_seconds": 1.0, "rows": [measured]}
    script._file_of(tiny, tmp_path).write_text(script.json.dumps(figures))
    assert script._read_figures(tiny, tmp_path) == script.json.loads(script.json.dumps(figures))
    assert script._read_figures(replace(tiny, seed=2), tmp_path) is None
    assert tiny.name in script.write_tables([tiny], tmp_path)


def test_what_was_asked_is_planned(script) -> None:
    campaigns = script.plan_campaigns()
    asked = [campaign for campaign in campaigns if campaign.is_asked]
    assert len({campaign.name for campaign in campaigns}) == len(campaigns)
    assert all(campaign.hits >= 2000 and campaign.diffuse == 0.05 for campaign in asked)
    combined = {(campaign.disorder, campaign.laue_group) for campaign in asked}
    assert combined >= {(d, g) for d in ("liquid-like", "rigid-body") for g in ("mmm", "4/mmm", "6/m")}
    assert {campaign.orientation_error for campaign in campaigns} >= {0.1, 0.3, 1.0}
    assert {campaign.streaks for campaign in asked} == {0.15, 0.3}


def test_only_the_tables_of_the_page_are_replaced(script) -> None:
    page = "above\n<!-- campaigns: begin -->\nold\n<!-- campaigns: end -->\nbelow\n"
    assert script.replace_block(page, "new") == page.replace("old", "new")
    with pytest.raises(SystemExit, match="lacks"):
        script.replace_block("above\n<!-- campaigns: begin -->\n", "new")
