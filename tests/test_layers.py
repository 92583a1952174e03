"""The house: imports point down, and what is heavy is imported where it is used."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "diffdask"

#: Layers from the ground up. A module may import from layers below its own, and from those named beside it.
LAYERS = (
    {"errors", "interruption", "pace", "version", "variables", "geometry", "planning", "symmetry"},
    {"kernels", "models", "pixels", "image_map", "frame_settings"},
    {"io", "steps"},
    {
        "catalogue",
        "classification",
        "evaluation",
        "evaluation_table",
        "learning_curve",
        "method_comparison",
        "method_pictures",
        "methods_table",
        "report",
        "frame_choice",
        "pictures",
        "orientation_pictures",
        "pair_pictures",
        "polar_pictures",
        "residual_pictures",
        "volume_pictures",
        "plots",
        "simulate",
        "tables",
    },
    {"cluster", "pipeline", "verbs"},
    {"cli"},
    {"__main__"},
)


def place(module: str) -> str:
    """Name of the layer's member: second part of a dotted name, as in diffdask.io.labels."""
    return module.split(".")[1] if "." in module else "__init__"


def height(member: str) -> int:
    return next(level for level, members in enumerate(LAYERS) if member in members)


def imports() -> list[tuple[str, str]]:
    """(importing module, imported module) of all imports within the package."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        name = _dotted(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "diffdask":
                targets = [node.module] if node.module != "diffdask" else [f"diffdask.{a.name}" for a in node.names]
                found += [(name, target) for target in targets]
            elif isinstance(node, ast.Import):
                found += [(name, a.name) for a in node.names if a.name.split(".")[0] == "diffdask"]
    return found


def test_the_house_has_imports_to_look_at() -> None:
    assert len(imports()) > 100


def test_imports_point_down() -> None:
    crooked = [
        f"{one} imports {other}"
        for one, other in imports()
        if one != "diffdask" and height(place(one)) < height(place(other))
    ]
    assert not crooked


def test_kernels_import_numpy_and_numba_with_its_compiler_only() -> None:
    known = {"numpy", "numba", "llvmlite", "diffdask", *sys.stdlib_module_names}
    for path in (PACKAGE / "kernels").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= known, path.name
            assert all(name.startswith("diffdask.kernels") for name in names if name.startswith("diffdask")), path.name


def test_steps_are_joined_by_data_and_not_by_imports() -> None:
    assert not [(a, b) for a, b in imports() if a.startswith("diffdask.steps.") and b.startswith("diffdask.steps.")]


def test_only_cluster_imports_distributed() -> None:
    users = {place(_dotted(path)) for path in PACKAGE.rglob("*.py") if "distributed" in _top_imports(path)}
    assert users == {"cluster"}


def test_importing_diffdask_and_asking_for_help_loads_nothing_heavy() -> None:
    script = (
        "import sys, diffdask, diffdask.cli\n"
        "try: diffdask.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'dask', 'xarray', 'numba', 'sklearn', 'zarr', 'matplotlib', 'pandas', 'h5py',\n"
        "         'keras', 'tensorflow'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _dotted(path: Path) -> str:
    return ".".join(("diffdask", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def _top_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found
