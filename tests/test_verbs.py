import inspect
import subprocess
import sys

import pytest

import diffdask.verbs as verbs
from diffdask.verbs import VERBS, verb

LAZY = ("dask", "distributed", "dask_ml", "numba", "matplotlib", "pandas", "xarray", "zarr", "h5py", "sklearn", "scipy")


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_takes_its_object_by_position_and_the_rest_by_keyword(name):
    first, *options = inspect.signature(verb(name)).parameters.values()
    assert first.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert all(option.kind is inspect.Parameter.KEYWORD_ONLY for option in options)
    assert getattr(verbs, name) is verb(name)
    assert verb(name).__name__ == name


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_is_a_sentence(name):
    assert VERBS[name].sentence.endswith(".")
    assert VERBS[name].sentence[0].isupper()


def test_what_is_no_verb_is_told_with_those_there_are():
    with pytest.raises(AttributeError, match="no verb 'scren'; it has: simulate, ingest"):
        verbs.scren  # noqa: B018
    assert set(VERBS) <= set(dir(verbs))


@pytest.mark.parametrize("statement", ["import diffdask", "import diffdask.cli", "import diffdask.verbs"])
def test_importing_loads_nothing_heavy(statement):
    told = f"{statement}\nimport sys\nprint(*[name for name in {LAZY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
