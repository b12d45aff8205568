"""Writes the generated pages of docs/: ``python -m tools.docs``. A test compares them with the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tools.table_docs import tables_document

DOCS = Path(__file__).resolve().parents[1] / "docs"
GENERATED: dict[str, Callable[[], str]] = {"tables.md": tables_document}


def main() -> None:
    for name, document in GENERATED.items():
        (DOCS / name).write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
