"""The documents: they name what there is, and their links lead somewhere."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from diffdask.variables import VARIABLES
from diffdask.verbs import VERBS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)


def rows_of_variables() -> list[str]:
    return [
        f"| `{v.name}` | {', '.join(v.dims)} | {v.units} | {v.meaning} | `{v.made_by}` |" for v in VARIABLES.values()
    ]


def test_the_glossary_has_every_variable_as_it_is_declared() -> None:
    rows = [line for line in text("docs/glossary.md").splitlines() if line.startswith("| `")]
    expected = rows_of_variables()
    assert rows == expected, "the table of docs/glossary.md should read:\n" + "\n".join(expected)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_every_verb_is_shown(page: str) -> None:
    missing = [name for name in VERBS if not re.search(rf"\bdiffdask {name}\b|^make demo\b", text(page), re.MULTILINE)]
    assert not missing


def test_commands_of_the_documents_are_verbs() -> None:
    shown = {
        word
        for page in PAGES
        for block in blocks(str(page.relative_to(ROOT)), "(?:sh|console)")
        for word in re.findall(r"^(?:\$ )?diffdask (\w+)", block, re.MULTILINE)
    }
    assert shown
    assert shown <= set(VERBS)


def test_relative_links_lead_to_files() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not dead


def test_headings_that_are_linked_are_there() -> None:
    dead = []
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target and anchor not in anchors(page.parent / target if target else page):
                dead.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    assert not dead


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop().resolve()
        if page not in seen:
            seen.add(page)
            found = re.findall(r"\]\(([^)#\s]+\.md|[^)#\s]+/)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
            targets = [page.parent / target for target in found if "://" not in target]
            left += [target / "README.md" if target.is_dir() else target for target in targets]
    assert not [str(page.relative_to(ROOT)) for page in PAGES if page.resolve() not in seen]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_of_the_documents_is_python_and_toml(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    for code in blocks(name, "python"):
        ast.parse(code)
    for code in blocks(name, "toml"):
        tomllib.loads(code)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
