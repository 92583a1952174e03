"""The script that ranks simulated campaigns without labels: benchmarks/campaigns.py."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffdask.models import map_search


@pytest.fixture(scope="module")
def script():
    folder = Path(__file__).parents[1] / "benchmarks"
    sys.path.insert(0, str(folder))  # as it is for a script of that folder
    spec = importlib.util.spec_from_file_location("campaigns", folder / "campaigns.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["campaigns"] = module
    spec.loader.exec_module(module)
    evidence = sys.modules["campaign_evidence"]
    evidence._TILE = 64  # so that few hits make several tiles
    step, map_search.MAP_STEP = map_search.MAP_STEP, 0.09  # a map as coarse as the bins
    yield module
    map_search.MAP_STEP = step
    del sys.modules["campaigns"], sys.modules["campaign_evidence"]
    sys.path.remove(str(folder))


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
    for name in ("pairs", "consistency", "search", "label_free", "bound"):
        assert measured[name]["area"]["value"] > 0.9, name
    assert measured["label_free"]["diffuse"] == 30
    assert measured["label_free"]["non_diffuse"] == 120
    assert measured["pairs"]["diffuse"] < 30, "those that are not indexed have no pairs"
    assert measured["picks"]["count"] - measured["picks"]["wrong"] > 25


def test_orientations_are_judged_in_the_labelling_that_the_map_has(measured) -> None:
    share, angle = measured["oriented"]["all"]
    assert share > 0.9
    assert angle < 2.0


def test_orientations_of_other_hits_tell_nothing(script, tiny, measured) -> None:
    misled = script.measure_campaign(replace(tiny, misindexed=1.0))[0]
    assert 0.3 < misled["pairs"]["area"]["value"] < 0.7
    assert misled["structure"] == measured["structure"], "structure needs no orientation"
    assert misled["bound"]["area"]["value"] > 0.9, "the bound knows the true ones"


def test_picks_are_held_against_what_was_promised_for_them(script) -> None:
    picked = np.array([True, True, True, False])
    found = script._measure_picks(picked, np.array([0.1, np.nan, 0.3, 0.9]), np.array([True, False, True, True]))
    assert found == {"count": 3, "wrong": 1, "diffuse": 3, "promised": 0.3}
    assert script._measure_picks(~picked & False, np.ones(4), picked)["promised"] == 0.0


def test_figures_are_kept_for_the_very_same_campaign_only(script, tiny, measured, tmp_path) -> None:
    figures = {"campaign": script._plain(tiny), "cpu_seconds": 1.0, "rows": [measured]}
    script._file_of(tiny, tmp_path).write_text(script.json.dumps(figures))
    assert script._read_figures(tiny, tmp_path) == script.json.loads(script.json.dumps(figures))
    assert script._read_figures(replace(tiny, seed=2), tmp_path) is None
    assert tiny.name in script.write_tables([tiny], tmp_path)


def test_what_was_asked_is_planned(script) -> None:
    campaigns = script.plan_campaigns()
    asked = [campaign for campaign in campaigns if campaign.asked]
    assert len({campaign.name for campaign in campaigns}) == len(campaigns)
    assert all(campaign.hits >= 2000 and campaign.diffuse == 0.05 for campaign in asked)
    plain = [campaign for campaign in asked if campaign.asked == (0.995, 0.95)]
    combined = {(campaign.disorder, campaign.laue_group) for campaign in plain}
    assert combined >= {(d, g) for d in ("liquid-like", "rigid-body") for g in ("mmm", "4/mmm", "6/m")}
    assert {campaign.misindexed for campaign in asked if campaign.asked == (0.985, 0.93)} == {0.1}
    assert {campaign.indexed for campaign in asked if campaign.asked[0] == 0.97} == {0.5}
    assert {campaign.diffuse for campaign in campaigns} >= {0.01, 0.02}


def test_only_the_tables_of_the_page_are_replaced(script) -> None:
    page = "above\n<!-- campaigns: begin -->\nold\n<!-- campaigns: end -->\nbelow\n"
    assert script.replace_block(page, "new") == page.replace("old", "new")
    with pytest.raises(SystemExit, match="lacks"):
        script.replace_block("above\n<!-- campaigns: begin -->\n", "new")
