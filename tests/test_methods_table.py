"""The comparison of methods as text for a terminal."""

import json

import numpy as np
import pytest

from diffdask.errors import BadParameter, BadStorage
from diffdask.io.storage import storage_at
from diffdask.learning_curve import find_label_curve
from diffdask.method_comparison import COLUMNS, compare_methods
from diffdask.methods_table import KIND, format_methods, gather_left_out, read_methods, share_of_labels
from diffdask.models.ranker import Ranker


@pytest.fixture(scope="module")
def made():
    random = np.random.default_rng(0)
    y, run = (np.arange(200) % 4 == 0).astype(int), np.arange(200) // 20
    sets = {"good": random.normal(size=(200, 4)) + 2.5 * y[:, None], "poor": random.normal(size=(200, 4))}
    ranker = Ranker(engine="scikit-learn", C=1.0, calibration="none")
    folds = {"ranker": ranker, "fold_count": 4, "seed": 3}
    scores = {"by hand, no labels": (sets["good"].sum(axis=1), 5.0)}
    return {
        "kind": KIND,
        "comparison": compare_methods(sets, y, run, scores=scores, bootstrap=30, prevalence=0.02, **folds),
        "curves": {
            name: find_label_curve(X, y, run, counts=(20, 50, 900), repeats=2, bootstrap=20, **folds)
            for name, X in sets.items()
        },
        "without_labels": list(scores),
        "left_out": {"vgg16": "not there; run: extract", "azimuthal+vgg16": "not there; run: extract"},
        "warnings": ["VGG16 HAS RANDOM WEIGHTS."],
    }


def test_every_figure_of_every_method_is_there_with_its_interval_below(made):
    lines = format_methods(made).splitlines()
    for name, row in made["comparison"]["rows"].items():
        at = next(i for i, line in enumerate(lines) if line.startswith(name))
        for column in COLUMNS:
            value, low, high = (row[column][part] for part in ("value", "low", "high"))
            if value is None:
                assert "none" in lines[at]
                continue
            is_area = column == "area_under_roc"
            assert (f"{value:.3f}" if is_area else f"{100 * value:.1f}") in lines[at]
            assert (f"{low:.3f}–{high:.3f}" if is_area else f"{100 * low:.0f}–{100 * high:.0f}") in lines[at + 1]


def test_each_precision_says_its_share_of_diffuse_and_the_table_its_seed_folds_and_reference(made):
    text = format_methods(made)
    assert share_of_labels(made["comparison"]) == 0.25
    assert text.count("P at 25 %") == 2
    assert "P at 2 %" in text
    assert "seed 3" in text
    assert "(by run)" in text
    assert "Table I of the study of 2018" in text
    assert f"{100 * made['comparison']['reference_row']['precision_at_prevalence']:.1f}" in text


def test_a_star_is_for_those_that_pass_the_reference_only(made):
    for name, row in made["comparison"]["rows"].items():
        assert (f"{name} *" in format_methods(made)) == row["passes_reference"]


def test_lines_fit_a_wide_terminal(made):
    assert max(map(len, format_methods(made).splitlines())) <= 120


def test_the_curve_has_a_column_a_number_of_labels_and_says_which_are_missing(made):
    text = format_methods(made)
    head = next(line for line in text.splitlines() if "after labels" in line)
    assert head.split()[-2:] == ["20", "50"]
    assert "Too few hits for 900 labels" in text
    assert "after labels" not in format_methods(made | {"curves": {}})


def test_warnings_are_loud_and_what_is_left_out_is_told_once_a_reason(made):
    text = format_methods(made)
    assert "WARNING: VGG16 HAS RANDOM WEIGHTS." in text
    assert gather_left_out(made) == {"Not there; run: extract": ["vgg16", "azimuthal+vgg16"]}
    assert text.count("run: extract") == 1


def test_what_was_found_is_read_from_a_bucket_too(bucket):
    storage_at(bucket).write_text("methods.json", json.dumps({"kind": KIND, "curves": {}}))
    assert read_methods(f"{bucket}/methods.json") == {"kind": KIND, "curves": {}}
    with pytest.raises(BadParameter, match=r"no file at 's3://.*/other\.json'; diffdask methods"):
        read_methods(f"{bucket}/other.json")
    with pytest.raises(BadStorage, match="no such bucket"):
        read_methods("s3://absent/methods.json")
