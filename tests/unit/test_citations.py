"""What the code and the documents cite of the design stands in docs/design, under that heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DESIGN = ROOT / "docs" / "design"
TEXTS = {".py", ".md", ".toml", ".properties", ".ipynb", ".sh", ".yaml", ".yml"}
# One or more topics of a document, with commas between them; a citation may go on in the next line of a comment.
_CITATION = re.compile(r"design/(?P<name>[\w-]+)\.md:\s(?P<topics>[^).;:(\"`|]+)")
_NEXT_LINE = re.compile(r"\s*\n\s*(?:#\s*)?")
# Whose numbers stay: published standards, and the issues.
_PUBLISHED = re.compile(r"(PS3\.\d+|RFC \d+|issue \d+,?) §[\d.]+( and §\d+)?")


def texts() -> Iterator[tuple[str, str]]:
    """The name and the text of every file that may cite the design."""
    for folder in ("src", "tests", "docs", "jobs", "notebooks"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in TEXTS and path != Path(__file__):
                yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


@cache
def headings(name: str) -> set[str]:
    path = DESIGN / f"{name}.md"
    return set(re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)) if path.is_file() else set()


def cited(text: str) -> Iterator[tuple[str, str]]:
    """The documents and topics that a text cites."""
    for found in _CITATION.finditer(_NEXT_LINE.sub(" ", text)):
        yield from ((found["name"], topic.strip()) for topic in found["topics"].split(","))


def dangling(text: str) -> list[str]:
    """The citations of a text that lead nowhere."""
    return [f"{name}: {topic}" for name, topic in cited(text) if topic not in headings(name)]


def numbered(text: str) -> list[str]:
    """The lines that cite a section by its number."""
    return [line for line in text.splitlines() if "§" in _PUBLISHED.sub("", line)]


def test_every_citation_is_a_heading() -> None:
    found = {name: list(cited(text)) for name, text in texts()}
    assert sum(map(len, found.values())) > 150
    assert {name: wrong for name, text in texts() if (wrong := dangling(text))} == {}


def test_nothing_is_cited_by_number() -> None:
    """The numbers of these documents are gone; those of the DICOM standard, of RFCs and of issues stay."""
    assert {name: lines for name, text in texts() if (lines := numbered(text))} == {}


def test_a_citation_that_leads_nowhere_is_seen() -> None:
    """The broken twins: a topic, a document and a second topic that are not there, a line that breaks, numbers."""
    assert dangling("# One commit (design/architecture.md: Fencing, Fold); more.") == []
    assert dangling("# One commit (design/architecture.md:\n    # Fencing).") == []
    assert dangling("(design/architecture.md: Fences)") == ["architecture: Fences"]
    assert dangling("(design/architecture.md: Fencing,\n  Folds)") == ["architecture: Folds"]
    assert dangling('"""(design/nothing.md: Fencing)."""') == ["nothing: Fencing"]
    assert numbered("(architecture §5.2)\n(PS3.18 §10.5; RFC 9110 §5.6.7; issue 4, §1)\nby spark.md §3.1\n(§4)") == [
        "(architecture §5.2)", "by spark.md §3.1", "(§4)",
    ]  # fmt: skip
