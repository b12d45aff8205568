"""docs/settings.md, from the file of defaults and its comments."""

from __future__ import annotations

import re
from importlib import resources

_HEAD = """# Settings

For people who configure `dicom-etl`. `make docs` generates this page from
[default.toml](../src/dicom_etl/core/settings/default.toml); do not edit it.

Later wins:

1. the defaults below;
2. one file: `--config FILE`, else `$DICOM_ETL_CONFIG`, else `./conf/local.toml`;
3. `DICOM_ETL__SECTION__KEY` in the environment, such as `DICOM_ETL__FEED__WINDOW=30m`;
4. `--set section.key=value` on the command line.

`dicom-etl config` prints every setting with the place it came from. A wrong key or value ends each command with 78, and
all of them are reported at once. Tokens and account keys are no settings: a setting names the variable that holds them.

Durations are written `90s`, `15m`, `1h`, `2d`; instants are RFC 3339 with a zone. An empty default means "not set".
"""

_TABLE = "| setting | default | meaning |\n|---|---|---|\n"
_SETTING = re.compile(r"(\w+) = (.+)")
_PAGE = re.compile(r"docs/([\w-]+\.md)")


def settings_document() -> str:
    """The whole of docs/settings.md."""
    return "\n".join([_HEAD, *(_section(text) for text in _sections(_defaults()))])


def _defaults() -> str:
    return resources.files("dicom_etl.core.settings").joinpath("default.toml").read_text(encoding="utf-8")


def _sections(defaults: str) -> list[str]:
    """The sections of the file, each from its head on; what stands above the first one is in ours."""
    return re.split(r"^(?=\[)", defaults, flags=re.MULTILINE)[1:]


def _section(text: str) -> str:
    """One table. A comment counts for the settings that follow it without one of their own."""
    head, *lines = text.splitlines()
    name, above = head.strip("[]"), ""
    rows: list[str] = []
    comment: list[str] = []
    for line in lines:
        if line.startswith("#"):
            comment.append(line.removeprefix("#").strip())
        elif setting := _SETTING.fullmatch(line):
            key = f"{name}.{setting[1]}"
            if not comment and not above:
                raise ValueError(f"default.toml: {key} has no comment")
            meaning = _PAGE.sub(r"[\1](\1)", " ".join(comment)).replace("|", "\\|") or f"see `{above}`"
            above = key if comment else above
            rows.append(f"| `{key}` | {_value(setting[2])} | {meaning} |")
            comment = []
    return f"## {name}\n\n{_TABLE}" + "\n".join(rows) + "\n"


def _value(text: str) -> str:
    return "" if text == '""' else f"`{text.strip(chr(34))}`"
