"""Hooks of mkdocs: the pages and files outside docs/ become part of the site, and links to them follow.

The Markdown files link as the repository lies, so that they work on a Git forge as well; mkdocs knows docs/ only.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Pages at the top of the repository, by their names in the site.
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}

_LINK = re.compile(r"\[(?P<text>[^\]\n]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
_REMOTE = re.compile(r"[a-z]+:")
_LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(?:https?:)?//"
    r"|<link\b(?![^>]*\brel=\"?(?:canonical|prev|next)\b)[^>]*\bhref=\"?(?:https?:)?//"
)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages at the top, and every file that a page links to."""
    from mkdocs.structure.files import File  # noqa: PLC0415

    added = {uri: ROOT / name for uri, name in PAGES.items()}
    for source in [*(ROOT / name for name in PAGES.values()), *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in linked(source.read_text(encoding="utf-8"), source.relative_to(ROOT).as_posix()):
            if not target.startswith("docs/") and target not in PAGES.values() and (ROOT / target).is_file():
                added[target] = ROOT / target
    for uri, path in added.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001
    """Turn links of the repository into links of the site."""
    return in_site(markdown, repository_path(page.file.src_uri))


def on_post_page(output: str, page: Any, config: Any) -> str:  # noqa: ARG001
    """Refuse a page that loads something from another site."""
    from mkdocs.exceptions import PluginError  # noqa: PLC0415

    if loads := _LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads from another site: {loads[0]}")
    return output


def linked(markdown: str, source: str) -> list[str]:
    """The paths in the repository that a page links to."""
    targets = (found["target"] for found in _LINK.finditer(markdown))
    return [_resolved(target, source) for target in targets if not _REMOTE.match(target)]


def in_site(markdown: str, source: str) -> str:
    """The page with its links as the site has them; a link to a folder becomes plain text."""

    def replaced(link: re.Match[str]) -> str:
        if _REMOTE.match(link["target"]):
            return link[0]
        path = _resolved(link["target"], source)
        if (ROOT / path).is_dir():
            return link["text"]
        target = posixpath.relpath(site_path(path), posixpath.dirname(site_path(source)) or ".")
        return f"[{link['text']}]({target}{link['anchor'] or ''})"

    return _LINK.sub(replaced, markdown)


def repository_path(uri: str) -> str:
    """`docs/tables.md` of `tables.md`, `README.md` of `index.md`."""
    return PAGES.get(uri, f"docs/{uri}")


def site_path(path: str) -> str:
    """`tables.md` of `docs/tables.md`, `index.md` of `README.md`; files outside docs/ keep their path."""
    names = {name: uri for uri, name in PAGES.items()}
    return names.get(path, path.removeprefix("docs/"))


def _resolved(target: str, source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
