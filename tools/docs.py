"""Writes the generated pages of docs/: ``python -m tools.docs``. A test compares them with the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tools.cli_docs import cli_document
from tools.exit_code_docs import exit_codes_document
from tools.fhir_docs import fhir_mapping_document
from tools.log_docs import log_events_document
from tools.metric_docs import metrics_document
from tools.settings_docs import settings_document
from tools.table_docs import tables_document
from tools.tag_docs import tags_document

DOCS = Path(__file__).resolve().parents[1] / "docs"
GENERATED: dict[str, Callable[[], str]] = {
    "cli.md": cli_document,
    "exit-codes.md": exit_codes_document,
    "fhir-mapping.md": fhir_mapping_document,
    "log-events.md": log_events_document,
    "metrics.md": metrics_document,
    "settings.md": settings_document,
    "tables.md": tables_document,
    "tags.md": tags_document,
}


def main() -> None:
    for name, document in GENERATED.items():
        (DOCS / name).write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
