"""The documents: generated pages are current, each page names its reader, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools.docs import DOCS, GENERATED
from tools.site_hooks import _LOADED, in_site, linked

ROOT = DOCS.parent
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
PAGES = [*TOP, *sorted(DOCS.rglob("*.md"))]
CODE = [path for folder in ("src", "jobs", "tools", "notebooks") for path in sorted((ROOT / folder).rglob("*.py"))]


def first_line(text: str) -> str:
    """The first line that is neither empty nor a heading."""
    return next(line for line in text.splitlines() if line and not line.startswith("#"))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as a Git forge and the site make them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """The links of a page to files or headings of the repository that do not exist."""
    text = page.read_text(encoding="utf-8")
    dead = [path for path in linked(text, page.relative_to(ROOT).as_posix()) if not (ROOT / path).exists()]
    for target, anchor in re.findall(r"\]\(([\w./-]*\.md)?#([^)]+)\)", text):
        other = page.parent / target if target else page
        if other.is_file() and anchor not in anchors(other.read_text(encoding="utf-8")):
            dead.append(f"{target}#{anchor}")
    return dead


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_is_current(name: str) -> None:
    """Run `make docs` after a change of what it is made from."""
    assert (DOCS / name).read_text(encoding="utf-8") == GENERATED[name]()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_its_reader_and_has_no_dead_link(page: Path) -> None:
    assert re.match(r"For (the )?(people|developers|researchers)\b", first_line(page.read_text(encoding="utf-8")))
    assert dead_links(page) == []


def test_a_dead_link_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twins: a file and a heading that do not exist."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# One: `two`\n\n[a](#one-two) [b](page.md#three) [c](gone.md)\n", encoding="utf-8")
    assert dead_links(page) == ["gone.md", "page.md#three"]


def test_links_follow_into_the_site() -> None:
    """Pages at the top move; files keep their path; a link to a folder, which the site has none of, becomes text."""
    assert in_site("[a](../README.md#use-it) [b](../deploy) [c](https://example.org)", "docs/azure.md") == (
        "[a](index.md#use-it) b [c](https://example.org)"
    )
    assert in_site("[a](docs/tables.md)", "README.md") == "[a](tables.md)"
    assert in_site("[a](../../deploy/azure/roles.bicep)", "docs/adr/0001.md") == "[a](../deploy/azure/roles.bicep)"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def refused_words(text: str) -> list[str]:
    """The words of the house's list that a text uses, outside of code."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return re.findall(r"\b(?:anew|mend(?:s|ed|ing)?|whoever|spoil?t|for ever)\b", prose, re.IGNORECASE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_uses_the_words_of_the_field(page: Path) -> None:
    assert refused_words(page.read_text(encoding="utf-8")) == []


def test_the_code_uses_the_words_of_the_field() -> None:
    """In names, docstrings, comments, messages and log events."""
    assert len(CODE) > 200
    assert {path.name: words for path in CODE if (words := refused_words(path.read_text(encoding="utf-8")))} == {}


def test_a_refused_word_is_seen() -> None:
    """The broken twin; names of tests and output of commands stay."""
    assert refused_words("Built anew, `test_mended`\n```\nmend\n```\nfor ever") == ["anew", "for ever"]


# A package of this name on a public index is a stranger's: ours comes as a file.
_BY_NAME = re.compile(r"""\bpip\s+install\s+(?:-\S+\s+)*['"`]?dicom[-_]etl(?![\w.-]|\S*\s*@)""")


def test_nothing_advises_to_install_our_name_from_an_index() -> None:
    """Neither a message nor a page; broken twins: with an extra, behind an option, at the end of a line."""
    texts = [*PAGES, *CODE, *(path for path in (ROOT / "deploy").rglob("*") if path.is_file())]
    assert len(texts) > 250
    assert [path.name for path in texts if _BY_NAME.search(path.read_text(encoding="utf-8"))] == []
    for twin in ("pip install 'dicom-etl[spark]'", "pip install -U dicom-etl", "pip install\n'dicom_etl[notebook]'"):
        assert _BY_NAME.search(twin), twin
    for good in (
        "pip install './dicom_etl-0.1.0-py3-none-any.whl[all]'",
        'pip install "dicom-etl[all] @ file:///x.whl"',
    ):
        assert not _BY_NAME.search(good), good


def test_the_constraints_of_the_install_page_pin_all_that_the_wheel_asks_for(tmp_path: Path) -> None:
    """The line as it stands there, run in the checkout; pip takes each line that it writes for a constraint."""
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^sed .+ > dist/constraints\.txt$", page, re.MULTILINE)
    file = tmp_path / "constraints.txt"
    subprocess.run(["sh", "-c", line.replace("dist/constraints.txt", f"'{file}'")], cwd=ROOT, check=True)
    pinned = {Requirement(text).name for text in file.read_text(encoding="utf-8").splitlines()}
    assert len(pinned) > 60
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(one for name in extras if name != "all" for one in extras[name])]
    assert {Requirement(text).name for text in asked} - pinned == set()
    commands = re.findall(r"^.*bin/pip (?:install|wheel) .*$", page, re.MULTILINE)
    assert [("--constraint" in one) != ("--no-index" in one) for one in commands] == [True] * 4


@pytest.mark.parametrize(
    ("html", "loads"),
    [
        ('<script src="https://example.org/a.js">', True),
        ('<link href="//example.org/a.css" rel="stylesheet">', True),
        ('<img alt="flow" src="images/flow.svg">', False),
        ('<link rel="canonical" href="http://127.0.0.1:8000/">', False),
        ('<a href="https://example.org">', False),
    ],
)
def test_what_a_page_loads_from_another_site_is_seen(html: str, loads: bool) -> None:
    assert bool(_LOADED.search(html)) == loads


def test_every_page_can_be_found() -> None:
    """In the site's navigation, or, a decision, in the list of decisions."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    decisions = (DOCS / "adr" / "README.md").read_text(encoding="utf-8")
    for page in sorted(DOCS.rglob("*.md")):
        name = page.relative_to(DOCS).as_posix()
        assert f"({page.name})" in decisions if re.match(r"adr/\d", name) else f": {name}\n" in navigation, name
