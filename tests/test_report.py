"""The report: one file, nothing from outside, nothing from outside believed."""

import base64
import dataclasses
import datetime
import html.parser
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from diffdask.evaluation import evaluate_table
from diffdask.frame_choice import choose_pictures
from diffdask.io.results_store import KIND, replace_group
from diffdask.learning_curve import find_label_curve
from diffdask.method_comparison import compare_methods
from diffdask.models.ranker import Ranker
from diffdask.orientation_pictures import OrientationSummary
from diffdask.pair_pictures import PairSummary, summarise_pairs
from diffdask.pictures import to_png
from diffdask.polar_pictures import draw_shared
from diffdask.report import Profile, ReportContent, render_report, summarise_background
from diffdask.variables import LABELS, wrap
from diffdask.volume_pictures import MapSummary, SectionPicture

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


def scored_without_labels(seed: int = 0) -> pd.DataFrame:
    """A catalogue whose scores are in units of chance, some of them of another kind."""
    table = catalogue(seed)
    random = np.random.default_rng(seed)
    score = np.where(random.random(COUNT) < 0.2, 5.0 + random.exponential(20.0, COUNT), random.normal(size=COUNT))
    table["frame_score"] = np.where(table["frame_is_hit"], score, np.nan)
    table["frame_rank"] = table["frame_score"].rank(ascending=False).fillna(0).astype(int)
    is_indexed = np.arange(COUNT) % 4 > 0
    table["frame_score_source"] = np.select(
        [~table["frame_is_hit"], is_indexed], ["not a hit", "pairs"], "structure: not indexed"
    )
    table.attrs["scores"] = {"version": "0.1.0", "method": "pairs", "threshold": 4.0, "parameters": {"seed": 0}}
    return table


def compared(table: pd.DataFrame, similarity: str = "common-arc") -> PairSummary:
    """Hits that agree where their scores are high."""
    hits = table[table["frame_is_hit"]]
    score, random = hits["frame_score"].to_numpy(), np.random.default_rng(0)
    noise = np.triu(0.05 * random.normal(size=(len(hits), len(hits))), 1)
    agreement = noise + noise.T + 0.3 * np.outer(score > 4, score > 4)
    return summarise_pairs(similarity, len(hits), hits.index.to_numpy(), agreement, score)


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


# scores without labels -----------------------------------------------------------------------------


def test_the_threshold_is_that_of_the_method(whole: str) -> None:
    table = scored_without_labels()
    labels = labels_of(table)
    text = render_report(content(table=table, labels=labels, learning_curve=None))
    assert "at least 4 in units of chance" in text
    assert "Scores nearest 4," in text
    assert "at least 0.5, a probability" in whole
    assert f"<b>{(table['frame_score'] >= 4).sum()}</b>predicted diffuse" in text
    assert Page(text).open == []


def test_the_doubtful_and_the_wrong_go_by_the_threshold_of_the_method() -> None:
    table = scored_without_labels()
    labels = labels_of(table)
    chosen = choose_pictures(table, labels, COUNT)
    doubt = (table["frame_score"] - 4.0).abs()
    assert (np.diff(doubt[chosen["doubtful"]]) >= 0).all()
    counts = np.array(evaluate_table(table, labels, bootstrap=2)["confusion"]["counts"])
    assert len(chosen["wrong"]) == counts.sum() - np.trace(counts)
    certainty = doubt[chosen["wrong"]].fillna(doubt[labels.index].max())  # taken for a blank: as surely as any
    assert (np.diff(certainty) <= 0).all()


def test_scores_that_are_no_probabilities_have_no_likelihood(whole: str) -> None:
    text = render_report(content(table=scored_without_labels(), learning_curve=None))
    assert "log-likelihood of a label" not in text
    assert "log-likelihood of a label" in whole


def test_it_is_told_which_score_hits_have_and_how_many_of_each_are_picked(whole: str) -> None:
    table = scored_without_labels()
    text = render_report(content(table=table, learning_curve=None))
    hits = table[table["frame_is_hit"]]
    for name, of in hits.groupby("frame_score_source"):
        row = f'{name}</th><td class="count">{len(of)}</td><td class="count">{(of["frame_score"] >= 4).sum()}</td>'
        assert row in text
    assert ">not a hit<" not in text
    assert "Which score hits have" not in whole


def test_the_share_of_picks_that_are_expected_to_be_wrong_is_told_and_what_it_is_not_said_of(whole: str) -> None:
    table = scored_without_labels()
    table.attrs["scores"] = {**table.attrs["scores"], "expected_wrong_share": 0.0312, "picks_without_promise": 2}
    text = render_report(content(table=table, learning_curve=None))
    picked = (table["frame_score"] >= 4).sum()
    assert f"Of the {picked} hits that are predicted diffuse, 3.1 % are expected to be wrong" in text
    assert "nothing is promised of 2 of them" in text
    assert "expected to be wrong" not in whole


# what hits share, and pairs of hits ----------------------------------------------------------------


def test_pairs_of_hits_have_a_section_with_a_described_picture_of_each_kind() -> None:
    table = scored_without_labels()
    pairs = (compared(table), compared(table, "euclidean"))
    text = render_report(content(table=table, learning_curve=None, pairs=pairs))
    page = Page(text)
    assert page.open == page.without_alt == []
    assert len(page.ids) == len(set(page.ids))
    assert {"pairs"} <= set(page.ids)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert page.tags.count("img") == 4 + 3 * 4 + 2 * 3
    assert "Similarity: common-arc" in text
    assert "Similarity: euclidean" in text
    assert "the highest score top and left" in text
    picked = (table["frame_score"] >= 4).sum()
    assert f"the first {picked} are predicted diffuse" in text


def test_without_labels_the_leading_coordinates_are_shown() -> None:
    table = scored_without_labels()
    text = render_report(content(table=table, labels=None, learning_curve=None, pairs=(compared(table),)))
    assert "The two leading coordinates" in text
    assert "coordinates 1 and 2" in text


def test_results_without_compared_hits_have_no_section_of_pairs(whole: str) -> None:
    assert "Pairs of hits" not in whole
    assert "What hits share" not in whole
    assert not {"pairs", "shared"} & set(Page(whole).ids)


def test_why_there_is_no_diffusion_map_is_told_and_not_run() -> None:
    table = scored_without_labels()
    few = dataclasses.replace(
        compared(table), eigenvalues=np.empty(0), coordinates=np.empty((48, 0)), failure=HOSTILE, similarity=HOSTILE
    )
    table["frame_score_source"] = HOSTILE
    text = render_report(content(table=table, learning_curve=None, pairs=(few,)))
    assert "No diffusion map: &lt;script&gt;" in text
    assert "<script" not in text
    assert Page(text).open == []


def test_pairs_compared_before_anything_is_ranked_say_how_they_are_ordered() -> None:
    table = scored_without_labels()
    pairs = dataclasses.replace(compared(table), is_by_score=False)
    table = table.drop(columns=["frame_score", "frame_rank", "frame_score_source"])
    table.attrs["scores"] = None
    text = render_report(content(table=table, learning_curve=None, pairs=(pairs,)))
    assert "ordered by the leading coordinate, because nothing is ranked yet" in text
    assert Page(text).open == []


@pytest.mark.parametrize("count", [0, 3, 20])
def test_what_hits_share_is_pictured_where_there_is_any(tmp_path: Path, count: int) -> None:
    path, random = tmp_path / "results.zarr", np.random.default_rng(0)
    zarr.open_group(str(path), mode="w-", zarr_format=3, attributes={"kind": KIND})
    assert draw_shared(path) is None
    replace_group(path, "hits", wrap(polar_ring_q=np.linspace(0.2, 1.0, 5)), {})
    features = wrap(
        hit_frame=np.arange(7),
        cleaned_residual=random.normal(size=(7, 5, 12)),
        nuisance_component=random.normal(size=(count, 5, 12)),
    )
    replace_group(path, "features", features, {})
    shared = draw_shared(path)
    text = render_report(content(shared=shared))
    assert ("What hits share on the detector" in text) == bool(count)
    assert Page(text).without_alt == Page(text).open == []
    if count:
        assert f"The {min(count, 16)} strongest of {count} components" in text


# structure, orientations and the map ---------------------------------------------------------------


def structure_of(table: pd.DataFrame) -> pd.Series:
    hits = table.index[table["frame_is_hit"]]
    return pd.Series(np.random.default_rng(2).normal(size=len(hits)), index=hits)


def oriented(table: pd.DataFrame, **changes: Any) -> OrientationSummary:
    """Hits of which the search found some where indexing has them."""
    hits = table.index[table["frame_is_hit"]].to_numpy()
    random, number = np.random.default_rng(3), np.arange(hits.size)
    found = OrientationSummary(
        hit_frame=hits,
        angle=np.where(number % 3 == 0, 0.5, random.uniform(20, 100, hits.size)),
        search=np.where(number % 3 == 0, 20.0, random.normal(size=hits.size)),
        source=np.full(hits.size, "indexing", dtype=object),
        is_misindexed=np.zeros(hits.size, dtype=bool),
        significance=6.0,
        judged_count=16,
        right_share=0.9375,
        right_angle=0.52,
    )
    return dataclasses.replace(found, **changes)


def merged(half_maps: bool = True) -> MapSummary:
    uri = to_png(np.random.default_rng(4).normal(size=(9, 9)), limit=3.0)
    axes = (("hk0", "a*", "b*"), ("h0l", "a*", "c*"), ("0kl", "b*", "c*"))
    return MapSummary(
        sections=[SectionPicture(*names, q_max=3.7, limit=0.18, uri=uri) for names in axes],
        thickness=0.11,
        half_maps=uri if half_maps else None,
        best=(0.58, 1.39) if half_maps else None,
        hit_count=48,
        laue="mmm",
        step=0.037,
        size=200,
    )


def picture_of(text: str, description: str) -> str:
    """The SVG of a report's picture."""
    found = re.search(rf'<img src="data:image/svg\+xml;base64,([^"]+)" alt="{description}', text)
    assert found is not None
    return base64.b64decode(found[1]).decode()


def test_every_section_of_the_map_has_a_described_picture_with_units() -> None:
    text = render_report(content(map=merged()))
    page = Page(text)
    assert page.open == page.without_alt == []
    assert "map" in page.ids
    assert page.tags.count("img") == 5 + 3 * 4 + 3 + 1
    assert text.count("colours from −0.18 (blue) to 0.18 photon (red)") == 3
    assert text.count("edges at q = 3.7&nbsp;Å⁻¹") == 3
    for told in ("48 hits", "Laue group mmm", "200 voxels of 0.037 Å⁻¹", "highest is 0.58 at q = 1.39 Å⁻¹"):
        assert told in text


def test_a_map_without_half_map_correlation_says_so() -> None:
    text = render_report(content(map=merged(half_maps=False)))
    assert "share too few voxels to be correlated" in text
    assert Page(text).open == []


def test_what_is_not_there_has_no_section(whole: str) -> None:
    assert not {"map", "structure", "orientations"} & set(Page(whole).ids)
    for title in ("The map", "Scores against structure", "Orientations found"):
        assert title not in whole


def test_scores_are_shown_against_structure_by_label_or_else_by_prediction() -> None:
    table = catalogue()
    labelled = picture_of(render_report(content(table=table, structure=structure_of(table))), "Score against structure")
    text = render_report(content(table=table, labels=None, structure=structure_of(table)))
    predicted = picture_of(text, "Score against structure")
    assert "structure" in Page(text).ids
    assert "unlabelled" in labelled
    assert "predicted" not in labelled
    assert ">predicted diffuse<" in predicted
    assert "unlabelled" not in predicted


def test_structure_is_not_shown_against_itself_nor_before_there_are_scores() -> None:
    table = catalogue()
    structure = structure_of(table)
    table.attrs["scores"]["method"] = "structure"
    assert "structure" not in Page(render_report(content(table=table, structure=structure))).ids
    table = table.drop(columns=["frame_score", "frame_rank"])
    table.attrs["scores"] = None
    text = render_report(content(table=table, structure=structure, learning_curve=None))
    assert "structure" not in Page(text).ids


def test_misindexed_hits_are_crossed_and_counted() -> None:
    table = catalogue()
    found = oriented(table)
    is_misindexed = np.arange(found.hit_frame.size) < 4
    source = np.where(is_misindexed, "map", "indexing").astype(object)
    wrong = dataclasses.replace(found, is_misindexed=is_misindexed, source=source)
    structure = structure_of(table)
    text = render_report(content(table=table, structure=structure, orientations=wrong))
    assert "4 hits are misindexed: structure without agreement" in text
    assert "misindexed (4)" in picture_of(text, "Score against structure")
    assert "misindexed (4)" in picture_of(text, "Histogram of the angle")
    assert 'found in the map</th><td class="count">4</td>' in text
    assert f'indexing</th><td class="count">{found.hit_frame.size - 4}</td>' in text
    text = render_report(content(table=table, structure=structure, orientations=found))
    assert "structure without agreement" not in text
    assert "misindexed" not in picture_of(text, "Score against structure")


def test_how_often_the_search_is_right_is_put_in_words() -> None:
    table = catalogue()
    text = render_report(content(table=table, orientations=oriented(table)))
    page = Page(text)
    assert page.open == page.without_alt == []
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert page.tags.count("img") == 5 + 3 * 4 + 2
    assert "16 hits agree with the map" in text
    assert "it does for 93.8 % of them, to within 0.52 degrees in the median" in text


def test_a_search_that_nothing_judges_and_that_found_nothing_still_has_its_section() -> None:
    table = catalogue().drop(columns=["frame_score", "frame_rank"])
    table.attrs["scores"] = None
    nothing = np.full(int(table["frame_is_hit"].sum()), np.nan)
    unjudged: dict[str, Any] = {"judged_count": 0, "right_share": None, "right_angle": None}
    found = oriented(table, angle=nothing, search=nothing, **unjudged)
    text = render_report(content(table=table, orientations=found, learning_curve=None))
    assert "the search cannot be judged" in text
    assert Page(text).tags.count("img") == Page(render_report(content(table=table, learning_curve=None))).tags.count(
        "img"
    )
    text = render_report(content(table=table, orientations=oriented(table), learning_curve=None))
    assert f"not ranked ({nothing.size})" in picture_of(text, "Histogram of how well")
    assert Page(text).open == []


def test_no_search_that_is_right_tells_no_median() -> None:
    table = catalogue()
    text = render_report(content(table=table, orientations=oriented(table, right_share=0.0, right_angle=None)))
    assert "it does for 0.0 % of them." in text


def test_log_odds_are_called_so_and_have_a_histogram() -> None:
    table = scored_without_labels()
    table.attrs["scores"] |= {"method": "label-free", "threshold": 0.0}
    text = render_report(content(table=table, learning_curve=None, structure=structure_of(table)))
    assert "at least 0 (log odds)" in text
    assert "units of chance" not in text
    assert "score: log odds that the hit is diffuse" in picture_of(text, "Histogram of the scores")
    assert "score: log odds that the hit is diffuse" in picture_of(text, "Score against structure")


def test_the_same_content_gives_the_same_bytes() -> None:
    table = catalogue()
    made = content(table=table, structure=structure_of(table), orientations=oriented(table), map=merged())
    assert render_report(made) == render_report(made)


# methods ------------------------------------------------------------------------------------------


def compared_methods(**changes: Any) -> dict[str, Any]:
    """As the verb ``methods`` writes it: two feature sets, and a score that needs no labels."""
    random = np.random.default_rng(0)
    y, run = np.arange(120) % 2, np.arange(120) // 20
    sets = {"azimuthal": random.normal(size=(120, 3)) + y[:, None], HOSTILE: random.normal(size=(120, 3))}
    ranker = Ranker(engine="scikit-learn", C=1.0, calibration="none")
    scores = {"structure, no labels": (sets["azimuthal"][:, 0], 1.0)}
    curve = {"counts": (10, 20), "repeats": 2, "bootstrap": 10, "ranker": ranker, "fold_count": 3}
    made: dict[str, Any] = {
        "comparison": compare_methods(sets, y, run, scores=scores, ranker=ranker, bootstrap=10, prevalence=0.02),
        "curves": {name: find_label_curve(X, y, run, **curve) for name, X in sets.items()},
        "left_out": {"vgg16": "not there; run: diffdask extract"},
        "warnings": ["VGG16 HAS RANDOM WEIGHTS"],
    }
    return made | changes


def test_the_methods_have_a_table_a_described_picture_and_a_learning_curve(whole: str) -> None:
    made = compared_methods()
    text = render_report(content(methods=made))
    page = Page(text)
    assert page.open == []
    assert page.without_alt == []
    assert {"methods", "labels"} <= set(page.ids)
    assert page.tags.count("img") == Page(whole).tags.count("img") + 3
    for row in made["comparison"]["rows"].values():
        assert f"{row['area_under_roc']['value']:.3f}" in text
        assert f"{100 * row['overall']['value']:.1f}" in text
    assert "<script" not in text
    assert {"methods", "labels"}.isdisjoint(Page(whole).ids)


def test_each_precision_of_the_methods_says_its_share_of_diffuse_and_the_reference_its_source() -> None:
    text = render_report(content(methods=compared_methods()))
    assert "hold where 50.0 % of the hits are diffuse, the last column where 2 % are" in text
    assert "Table I of the study of 2018" in text
    assert "no hit was scored by a ranker that had seen a hit of its run" in text


def test_random_weights_and_methods_that_are_missing_are_said_in_the_report() -> None:
    text = render_report(content(methods=compared_methods()))
    assert '<p class="warning">VGG16 HAS RANDOM WEIGHTS</p>' in text
    assert "Left out: vgg16. Not there; run: diffdask extract." in text


def test_folds_by_hit_are_called_flattering() -> None:
    made = compared_methods()
    made["comparison"]["folds_by"] = "hit"
    assert "which flatters them" in render_report(content(methods=made))


def test_methods_without_label_curves_have_no_section_of_them() -> None:
    page = Page(render_report(content(methods=compared_methods(curves={}))))
    assert "methods" in page.ids
    assert "labels" not in page.ids


def test_table_one_is_in_the_report_beside_the_references(whole: str) -> None:
    evaluation = content().evaluation
    assert evaluation is not None
    found = evaluation["hits_only"]
    for name, value in found["reference"]["figures"].items():
        assert f"{100 * value:.1f} %" in whole
        assert f"{100 * found[name]['value']:.1f} %" in whole
    assert "Table I of the study of 2018" in whole
    assert f"{100 * found['prevalence']:.1f} % of them diffuse" in whole
