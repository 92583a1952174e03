"""All methods on a small campaign: in the same folds, and what is not there or not trustworthy is said."""

import json

import numpy as np
import pytest

from diffdask.catalogue import catalogue_table
from diffdask.errors import BadLabels, BadParameter, BadStore
from diffdask.io.frames_store import open_frames
from diffdask.io.results_store import finish_group, open_features, open_group, open_screen, start_group, write_rows
from diffdask.methods_table import format_methods, read_methods
from diffdask.pipeline.compare import compare
from diffdask.pipeline.features import take_features
from diffdask.pipeline.methods import methods
from diffdask.pipeline.rank import rank
from diffdask.pipeline.train import train
from diffdask.report import report
from diffdask.variables import wrap

FAST = {"bootstrap": 20, "C": 0.1, "fold_by": "hit", "fold_count": 3, "repeats": 0}


@pytest.fixture
def results(small, tmp_path):
    return small.copy(tmp_path / "results.zarr")


def put_vgg16(results, weights):
    """A group as ``extract`` leaves it, of made-up features."""
    hit_frame = open_features(results).hit_frame.values
    features = np.random.default_rng(0).normal(size=(hit_frame.size, 6))
    names, sizes = ("hit_frame", "vgg16_features"), {"hit": hit_frame.size, "vgg16_feature": 6}
    start_group(results, "vgg16", sizes=sizes, names=names, block=64, parameters={"weights": weights, "batch": 64})
    write_rows(results, "vgg16", 0, wrap(vgg16_features=features, hit_frame=hit_frame))
    finish_group(results, "vgg16", weights=weights)


def test_all_that_is_there_is_in_the_table_and_what_is_not_says_how_to_make_it(small, results, tmp_path):
    made = methods(results, labels=small.labels, to=tmp_path / "methods.json", **FAST)
    trained = ["azimuthal", "structure", "anisotropy", "azimuthal+structure"]
    assert list(made["comparison"]["rows"]) == [*trained, "structure, no labels", "anisotropy, no labels"]
    assert made["comparison"]["hits"] == np.isin(small.label(), ("diffuse", "non-diffuse")).sum()
    assert "diffdask extract" in made["left_out"]["vgg16"]
    assert "diffdask compare" in made["left_out"]["pairs, no labels"]
    assert made["warnings"] == []
    assert read_methods(tmp_path / "methods.json") == made
    text = format_methods(made)
    for name in (*made["comparison"]["rows"], *made["left_out"], "reference (2018)", "2018"):
        assert name in text


def test_a_row_is_what_train_and_evaluate_give_with_the_same_folds(small, results, tmp_path):
    """The verb's table against the long way: train, rank, and count by hand."""
    options = {"C": 0.1, "fold_count": 3, "fold_by": "hit"}
    ranker = train(results, labels=small.labels, to=tmp_path / "r.zarr", engine="scikit-learn", **options)
    table = catalogue_table(rank(results, ranker=ranker))
    label = small.label()
    is_hit = np.isin(label, ("diffuse", "non-diffuse"))
    score, y = table["frame_score"].to_numpy(dtype=float)[is_hit], label[is_hit] == "diffuse"
    above = score[y][:, None] - score[~y]
    area = ((above > 0) + 0.5 * (above == 0)).mean()
    given = FAST | {"features": ["azimuthal"], "scores": ["structure"]}
    found = methods(results, labels=small.labels, to=tmp_path / "m.json", **given)["comparison"]["rows"]
    assert found["azimuthal"]["area_under_roc"]["value"] == pytest.approx(area, abs=1e-12)


def test_folds_keep_runs_together_unless_they_are_told_not_to(small, results, tmp_path):
    given = FAST | {"features": "structure", "scores": "structure"}
    by_run = methods(results, labels=small.labels, to=tmp_path / "m.json", **(given | {"fold_by": "run"}))
    assert by_run["comparison"]["folds_by"] == "run"
    assert by_run["comparison"]["fold_count"] == 3
    assert "(by run)" in format_methods(by_run)
    assert "(by hit)" in format_methods(methods(results, labels=small.labels, to=tmp_path / "m.json", **given))


def test_the_same_seed_gives_the_same_file_and_another_does_not(small, results, tmp_path):
    texts = []
    for seed in (0, 0, 1):
        methods(results, labels=small.labels, to=tmp_path / "m.json", features="structure", seed=seed, **FAST)
        texts.append((tmp_path / "m.json").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_the_label_curve_has_a_line_a_feature_set(small, results, tmp_path):
    given = FAST | {"features": ["structure", "anisotropy"], "repeats": 2, "counts": [10, 14, 500]}
    curves = methods(results, labels=small.labels, to=tmp_path / "m.json", **given)["curves"]
    assert list(curves) == ["structure", "anisotropy"]
    assert curves["structure"]["labels"] == [10, 14]
    assert curves["structure"]["left_out"] == [500]
    assert "Too few hits for 500 labels" in format_methods(read_methods(tmp_path / "m.json"))


@pytest.mark.parametrize(("weights", "is_loud"), [("random, seed 0 (for tests only)", True), ("imagenet", False)])
def test_random_weights_are_in_the_name_of_the_row_and_in_a_warning(small, results, tmp_path, weights, is_loud):
    put_vgg16(results, weights)
    to = tmp_path / "m.json"
    made = methods(results, labels=small.labels, to=to, features=["vgg16", "structure+vgg16"], **FAST)
    assert len(made["warnings"]) == is_loud
    names = [name for name in made["comparison"]["rows"] if "vgg16" in name]
    assert len(names) == 2
    assert all(("RANDOM WEIGHTS" in name) == is_loud for name in names)
    page = report(results, labels=small.labels, methods=to, to=tmp_path / "report", top=1).read_text(encoding="utf-8")
    for text in (format_methods(made), page):
        assert ("VGG16 HAS RANDOM WEIGHTS" in text) == is_loud


def test_pairs_and_diffusion_maps_stand_in_the_table_once_hits_are_compared(small, results, tmp_path):
    compare(results, min_samples=8, on="threads", progress=False)
    given = FAST | {"features": ["diffusion-map", "structure"], "scores": ["pairs", "structure"]}
    made = methods(results, labels=small.labels, to=tmp_path / "m.json", **given)["comparison"]
    assert list(made["rows"]) == ["diffusion-map", "structure", "pairs, no labels", "structure, no labels"]
    hits = open_features(results).hit_frame.values
    indexed = np.isfinite(open_frames(small.frames).orientation.values[hits]).all(axis=(1, 2))
    assert made["left_out"] == (~indexed).sum(), "hits that a method cannot speak of are left out for all"


def test_anisotropy_is_a_feature_set_like_any_other(small, results, tmp_path):
    """Against the numbers of the screen, band by band in a plain loop."""
    found = take_features(results, features="anisotropy")
    rings, q = open_screen(results).ring_anisotropy.values[found.hit_frame], open_screen(results).ring_q.values
    for row, of_hit in zip(found.values, rings, strict=True):
        for band, value in enumerate(row):
            known = [one for one in of_hit[3 * band : 3 * band + 3] if np.isfinite(one)]
            middle = np.median(known) if known and q[3 * band : 3 * band + 3].mean() >= 0.1 else 0.0
            assert value == pytest.approx(np.sign(middle) * abs(middle) ** 0.5)
    union = take_features(results, features="anisotropy+structure")
    assert union.values.shape == (found.hit_frame.size, found.values.shape[1] + 1)
    ranker = train(results, labels=small.labels, to=tmp_path / "r.zarr", features="anisotropy", C=0.1, fold_count=3)
    scores = open_group(rank(results, ranker=ranker), "scores")
    assert np.isfinite(scores.frame_score.values[found.hit_frame]).all()
    assert scores.attrs["features"] == "anisotropy"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"features": ["azimutal"]}, BadParameter, "did you mean 'azimuthal'"),
        ({"scores": ["pair"]}, BadParameter, "did you mean 'pairs'"),
        ({"features": ["vgg16"]}, BadStore, "diffdask extract"),
        ({"scores": ["haloes"]}, BadStore, "diffdask haloes"),
        ({"fold_by": "frame"}, BadParameter, "fold_by"),
        ({"prevalence": 1.5}, BadParameter, "prevalence"),
    ],
)
def test_what_cannot_be_is_told_and_writes_nothing(small, results, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        methods(results, labels=small.labels, to=tmp_path / "m.json", **(FAST | options))
    assert not (tmp_path / "m.json").exists()


def test_labels_that_the_label_free_score_made_judge_nobody(results, tmp_path):
    with pytest.raises(BadLabels, match="a person's labels"):
        methods(results, labels="label-free", to=tmp_path / "m.json", **FAST)


def test_the_report_takes_the_file_of_these_frames_only(small, results, tmp_path):
    to = tmp_path / "m.json"
    made = methods(results, labels=small.labels, to=to, features="structure", **FAST)
    to.write_text(json.dumps(made | {"frames_identity": "another"}))
    with pytest.raises(BadParameter, match="other frames"):
        report(results, methods=to, to=tmp_path / "report")
    for text, message in (("{}", "is not what"), ("[", "is no JSON")):
        to.write_text(text)
        with pytest.raises(BadParameter, match=message):
            report(results, methods=to, to=tmp_path / "report")
    with pytest.raises(BadParameter, match="no file at"):
        report(results, methods=tmp_path / "absent.json", to=tmp_path / "report")
