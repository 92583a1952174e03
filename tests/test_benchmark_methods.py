"""The script that compares methods with labels: benchmarks/methods.py."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from diffdask.geometry import pixel_positions
from diffdask.io.crystfel_geometry import parse_geometry
from diffdask.simulate import cspad_geometry_text

_MODULES = ("methods", "method_experiments", "method_features", "method_geometries", "method_tables")


@pytest.fixture(scope="module")
def scripts():
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)  # as it is for a script of that folder
    yield {name: importlib.import_module(name) for name in _MODULES}
    for name in _MODULES:
        del sys.modules[name]
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def campaign(scripts):
    """Made-up hits of six crystals, two runs each; no store behind them."""
    count = 6 * 2 * 90
    y = np.arange(count) % 2
    tiers = np.array(["strong", "medium", "weak"])[np.arange(count) // 2 % 3]
    return scripts["method_experiments"].Store(
        name="campaign",
        results=Path("nowhere"),
        hit_frame=np.arange(count),
        rows=np.arange(count),
        y=y,
        run=np.repeat([10 * crystal + run for crystal in range(1, 7) for run in (1, 2)], 90),
        index=np.tile(np.arange(90), 12),
        tier=np.where(y == 1, tiers, "none"),
        missed=0,
    )


def positions_of(text):
    return pixel_positions(parse_geometry(text).geometry, camera_length=0.12, shift=(0.0, 0.0))[..., :2]


def test_the_turned_detector_is_the_other_one_turned_and_pushed_aside(scripts) -> None:
    turned = positions_of(scripts["method_geometries"].turned_cspad_text(90.0, (0.0, 0.0)))
    straight = positions_of(cspad_geometry_text(seed=12))
    np.testing.assert_allclose(turned, np.stack([-straight[..., 1], straight[..., 0]], axis=-1), atol=1e-7)
    pushed = positions_of(scripts["method_geometries"].turned_cspad_text(90.0, (100.0, 0.0)))
    np.testing.assert_allclose(pushed - turned, np.broadcast_to([100 * 109.92e-6, 0.0], pushed.shape), atol=1e-7)


def test_the_eight_modules_leave_a_hole_for_the_beam_and_do_not_overlap(scripts) -> None:
    positions = positions_of(scripts["method_geometries"].eight_modules_text())
    assert positions.shape[:3] == (8, 512, 1024)
    assert np.linalg.norm(positions, axis=-1).min() > 10 * 75e-6
    low, high = positions.min(axis=(1, 2)), positions.max(axis=(1, 2))
    for one in range(8):
        for other in range(one):
            assert (np.minimum(high[one], high[other]) < np.maximum(low[one], low[other])).any()


def test_a_run_is_trained_on_or_tested_on_and_never_both(scripts, campaign) -> None:
    train, test = scripts["methods"].split_campaign(campaign)
    assert train.size == test.size == 500
    assert not set(campaign.run[train]) & set(campaign.run[test])
    assert set(campaign.run[train] // 10) == set(campaign.run[test] // 10) == set(range(1, 7))


def test_the_tables_star_what_reaches_the_reference_and_name_random_weights(scripts, campaign) -> None:
    tested, random = np.arange(campaign.y.size), np.random.default_rng(0)
    scores = {"perfect": (campaign.y + 0.0, 0.5), "VGG16, chance": (random.random(campaign.y.size), 0.5)}
    rows = scripts["methods"].measure_methods(scores, campaign, tested)
    some = slice(0, 360)
    X = campaign.y[some, None] + random.normal(size=(360, 3))
    options = {"counts": (10,), "repeats": 1, "fold_count": 2, "bootstrap": 10}
    curve = scripts["methods"].find_label_curve(X, campaign.y[some], campaign.run[some], **options)
    found = {"overall": 0.9, "area_under_roc": 0.9996}
    found["without_weak"] = dict(found)
    carried = {
        "names": ["a", "b"],
        "hits": 20,
        "methods": {"structure": {"left_out": [found, found], "from_one": [[None, found], [found, None]]}},
    }
    text = scripts["method_tables"].write_tables(
        {
            "campaign": {"trained": 500, "tested": 500, "rows": rows, "curves": {"azimuthal": curve}},
            "carried": carried,
        }
    )
    assert "| perfect \\* | 100.0 (" in text
    assert "| VGG16, chance [RANDOM WEIGHTS] | " in text
    assert "| structure | 90.0, 0.999 | 90.0, 0.999 | 90.0, 0.999 | 90.0, 0.999 |" in text, (
        "an area is never rounded up to 1"
    )
    assert text.count("**reference, 2018**") == 2
