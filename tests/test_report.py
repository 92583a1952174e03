"""The report: one file, nothing from outside, nothing from outside believed."""

import dataclasses
import datetime
import html.parser
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from diffdask.evaluation import evaluate_table
from diffdask.pictures import to_png
from diffdask.report import (
    Profile,
    ReportContent,
    choose_pictures,
    render_report,
    summarise_background,
)
from diffdask.variables import LABELS, wrap

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
COUNT = 80


class Page(html.parser.HTMLParser):
    """Tags and addresses of a page; checks that tags are closed."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.without_alt: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag == "img" and not given.get("alt"):
            self.without_alt.append(given)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"


def catalogue(seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    is_hit = random.random(COUNT) < 0.6
    score = np.where(is_hit, random.random(COUNT), np.nan)
    rank = pd.Series(score).rank(ascending=False).fillna(0).astype(int)
    table = pd.DataFrame(
        {
            "frame_id": [f"r{number % 3:04d}/e{number}" for number in range(COUNT)],
            "run": np.arange(COUNT) % 3,
            "frame_status": "ok",
            "frame_is_hit": is_hit,
            "frame_score": score,
            "frame_rank": rank.to_numpy(),
            "frame_peak_count": random.integers(0, 50, COUNT),
            "frame_peak_intensity": random.lognormal(2, 1, COUNT),
            "frame_anisotropy": random.normal(0.001, 0.01, COUNT),
        },
        index=pd.RangeIndex(COUNT, name="frame"),
    )
    table.loc[5, ["frame_status", "frame_is_hit", "frame_score", "frame_rank"]] = ["cut off", False, np.nan, 0]
    table.attrs = {
        "screen": {"version": "0.1.0", "parameters": {"snr": 6.0, "ring_count": 480}, "complete": True},
        "scores": {"version": "0.1.0", "method": "azimuthal features", "cross_fitted": True, "parameters": {"c": 1.0}},
    }
    return table


def labels_of(table: pd.DataFrame, seed: int = 1) -> pd.Series:
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(COUNT, 50, replace=False))
    return pd.Series(random.choice(LABELS, 50), index=chosen, name="label")


def content(**changes: Any) -> ReportContent:
    table = changes.pop("table", catalogue())
    labels = changes.pop("labels", labels_of(table))
    chosen = choose_pictures(table, labels, 4)
    picture = {"uri": to_png(np.random.default_rng(0).normal(size=(8, 8)), limit=3.0), "limit": 0.123}
    q = np.linspace(0.1, 2.0, 30)
    made = ReportContent(
        title="campaign",
        table=table,
        labels=labels,
        evaluation=None if labels is None else evaluate_table(table, labels, bootstrap=20),
        learning_curve={"iteration": [0, 1, 2], "training": [-0.7, -0.4, -0.3], "held_out": [-0.7, -0.5, -0.45]},
        profile=Profile(q, 0.8 * np.exp(-q), np.exp(-q), 1.2 * np.exp(-q)),
        chosen=chosen,
        drawn={frame: picture for section in chosen.values() for frame in section},
        top=4,
        made=datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC),
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def whole() -> str:
    return render_report(content())


def test_the_report_is_one_file_that_needs_no_network(whole: str) -> None:
    page = Page(whole)
    assert "http://" not in whole
    assert "https://" not in whole
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert not re.search(r"url\(|@import", whole)


def test_every_element_is_closed_every_picture_described_and_every_link_leads_somewhere(whole: str) -> None:
    page = Page(whole)
    assert page.open == []
    assert page.without_alt == []
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert page.tags.count("img") == 5 + 3 * 4


def test_text_from_outside_is_shown_and_not_run() -> None:
    table = catalogue()
    table["frame_id"] = [f"{HOSTILE}{number}" for number in range(COUNT)]
    table.loc[5, "frame_status"] = HOSTILE
    table.attrs["scores"]["method"] = HOSTILE
    table.attrs["screen"]["parameters"] = {HOSTILE: HOSTILE}
    text = render_report(content(table=table, title=HOSTILE))
    assert "<script" not in text
    assert "<img src=x" not in text
    assert text.count("&lt;script&gt;") >= 3 * 4
    assert Page(text).open == []


def test_every_number_of_the_evaluation_is_in_the_report(whole: str) -> None:
    evaluation = content().evaluation
    assert evaluation is not None
    for row in evaluation["classes"].values():
        assert f"{100 * row['precision']['value']:.1f} %" in whole
        assert f"{100 * row['recall']['low']:.1f} to {100 * row['recall']['high']:.1f}" in whole
    for row in evaluation["precision_at_prevalence"]:
        assert f"{100 * row['prevalence']:.1f} %" in whole
    assert "out of fold" in whole


def test_failures_parameters_and_versions_are_listed(whole: str) -> None:
    assert "cut off" in whole
    assert "ring_count" in whole
    assert "azimuthal features" in whole
    for package in ("diffdask", "numpy", "xarray", "Python"):
        assert package in whole


def test_without_labels_it_says_what_to_run() -> None:
    text = render_report(content(labels=None))
    assert "--labels" in text
    assert "Per class" not in text
    assert Page(text).open == []


def test_without_scores_it_shows_the_most_anisotropic_hits_and_says_what_to_run() -> None:
    table = catalogue().drop(columns=["frame_score", "frame_rank"])
    table.attrs["scores"] = None
    hits = table[table["frame_is_hit"]]
    assert choose_pictures(table, None, 3)["top"] == hits["frame_anisotropy"].nlargest(3).index.tolist()
    for labels in (None, labels_of(table)):
        text = render_report(content(table=table, labels=labels, learning_curve=None))
        assert "diffdask rank" in text
        assert "highest anisotropy" in text
        assert Page(text).open == []


def test_a_campaign_without_hits_still_has_a_report() -> None:
    table = catalogue()
    table["frame_is_hit"] = False
    table = table.drop(columns=["frame_score", "frame_rank"])
    text = render_report(content(table=table, labels=None, learning_curve=None, profile=None))
    assert Page(text).open == []


def test_frames_not_screened_yet_do_no_harm() -> None:
    table = catalogue().convert_dtypes()
    table.attrs = catalogue().attrs
    late = table.index[-7:]
    names = [name for name in table.columns if name not in ("frame_id", "run", "frame_status")]
    table.loc[late, names] = pd.NA
    table.loc[late, "frame_status"] = "not screened"
    text = render_report(content(table=table))
    assert text.count("not screened") == len(late)
    assert Page(text).open == []


def test_the_top_is_the_head_of_the_ranking() -> None:
    table = catalogue()
    chosen = choose_pictures(table, None, 7)
    assert table.loc[chosen["top"], "frame_rank"].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_no_hit_is_more_doubtful_than_the_doubtful() -> None:
    table = catalogue()
    chosen = choose_pictures(table, None, 7)["doubtful"]
    doubt = (table["frame_score"] - 0.5).abs()
    assert doubt[chosen].max() <= doubt.drop(chosen).min()


def test_the_wrong_are_those_off_the_diagonal_of_the_confusion_matrix() -> None:
    table = catalogue()
    labels = labels_of(table)
    counts = np.array(evaluate_table(table, labels, bootstrap=2)["confusion"]["counts"])
    wrong = choose_pictures(table, labels, COUNT)["wrong"]
    assert len(wrong) == len(set(wrong)) == counts.sum() - np.trace(counts)


def test_the_background_is_that_of_the_hits_and_leaves_out_rings_without_estimate() -> None:
    profile = np.tile([np.nan, 2.0, 1.0], (10, 1))
    profile[::2] = 100.0
    screen: xr.Dataset = wrap(
        frame_is_hit=np.arange(10) % 2 == 1, background_profile=profile, ring_q=np.array([0.1, 0.2, 0.3])
    )
    found = summarise_background(screen)
    assert found is not None
    assert found.ring_q.tolist() == [0.2, 0.3]
    assert found.median.tolist() == [2.0, 1.0]
    assert summarise_background(screen.assign(frame_is_hit=screen.frame_is_hit & False)) is None
