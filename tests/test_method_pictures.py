"""Pictures of the methods."""

import base64
import xml.etree.ElementTree as ElementTree

import pytest

from diffdask.classification import refer_to
from diffdask.method_pictures import describe_methods, plot_label_curves, plot_methods


def measure(value, half=0.05):
    return {"value": value, "low": None if value is None else value - half, "high": value, "count": 50}


def comparison(precision=0.6):
    rows = {
        name: {"area_under_roc": measure(area), "precision_at_prevalence": measure(precision)}
        for name, area in (("azimuthal", 0.94), ("vgg16 [RANDOM WEIGHTS]", 0.8), ("structure, no labels", 0.9))
    }
    return {"rows": rows, "hits": 100, "diffuse": 40, "prevalence": 0.02, "reference_row": refer_to(0.02)}


def curves():
    parts = {"value": [0.8, 0.9], "low": [0.7, None], "high": [0.9, 0.95]}
    one = {"labels": [10, 100], "area_under_roc": parts, "overall": parts}
    return {f"set {number}": one for number in range(9)}


def texts(uri):
    kind, content = uri.split(",", 1)
    assert "svg" in kind
    root = ElementTree.fromstring(base64.b64decode(content))
    return [text for node in root.iter() if node.tag.endswith("text") for text in ["".join(node.itertext()).strip()]]


def test_every_method_is_named_with_its_units_and_the_references_line():
    shown = texts(plot_methods(comparison()))
    for text in ("azimuthal", "vgg16 [RANDOM WEIGHTS]", "structure, no labels", "area under the curve"):
        assert text in shown
    assert "precision where 2 % are diffuse" in shown
    assert "reference (2018), from its recalls" in shown


def test_a_method_without_a_precision_still_has_its_row():
    assert "azimuthal" in texts(plot_methods(comparison(precision=None)))


@pytest.mark.parametrize(
    ("name", "axis"), [("area_under_roc", "area under the curve"), ("overall", "share of hits that are right")]
)
def test_curves_name_each_set_and_each_number_of_labels(name, axis):
    shown = texts(plot_label_curves(curves(), name))
    assert {"10", "100", "labels", axis, *curves()} <= set(shown)


def test_the_same_numbers_give_the_same_bytes():
    assert plot_methods(comparison()) == plot_methods(comparison())
    assert plot_label_curves(curves(), "overall") == plot_label_curves(curves(), "overall")


def test_without_curves_there_are_no_pictures_of_them():
    assert describe_methods({"comparison": comparison(), "curves": {}})["pictures"] == {}
    found = describe_methods({"comparison": comparison(), "curves": curves()})
    assert set(found["pictures"]) == {"area_under_roc", "overall"}
    assert found["share"] == 0.4
