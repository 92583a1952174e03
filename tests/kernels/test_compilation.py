"""Where compiled kernels are kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffdask.kernels import compilation
from diffdask.kernels.photons import count_photons


@pytest.fixture
def package(tmp_path):
    """A folder of two kernels and a copy of the compiler, where a kernel calls the other."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "compilation.py").write_text(Path(compilation.__file__).read_text())
    (folder / "inner.py").write_text("from compilation import compiled\n\n@compiled\ndef inner(x):\n    return x + 1\n")
    (folder / "outer.py").write_text(
        "from compilation import kernel\nfrom inner import inner\n\n"
        "@kernel\ndef outer(x):\n    return inner(x)\n\nprint(outer(1), sum(outer.stats.cache_hits.values()))\n"
    )
    return folder


def call(folder, **environment):
    done = subprocess.run(
        [sys.executable, "outer.py"], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    value, hits = done.stdout.split()
    return int(value), int(hits)


def test_a_kernel_is_compiled_once_and_again_when_one_that_it_calls_changes(package):
    assert call(package) == (2, 0)
    assert call(package) == (2, 1)
    inner = package / "inner.py"
    inner.write_text(inner.read_text().replace("x + 1", "x + 10"))
    assert call(package) == (11, 0)


def test_where_the_package_cannot_be_written_the_user_s_cache_is_taken(package, tmp_path):
    (package / "__pycache__").write_text("a file is where the folder should be")
    assert call(package, XDG_CACHE_HOME=str(tmp_path / "cache")) == (2, 0)
    assert call(package, XDG_CACHE_HOME=str(tmp_path / "cache")) == (2, 1)
    assert list((tmp_path / "cache" / "diffdask").glob("kernels-*"))


def test_kernels_let_other_threads_run():
    assert count_photons.targetoptions["nogil"]


def test_the_cache_of_other_libraries_is_left_where_it_was():
    import numba

    before = numba.config.CACHE_DIR
    compilation.kernel(lambda x: x)
    assert before == numba.config.CACHE_DIR
