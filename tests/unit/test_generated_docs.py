"""What the generators of docs/ refuse: a setting without a comment, a code of exit without a description."""

from __future__ import annotations

import re
import tomllib

import pytest

from tools import exit_code_docs, settings_docs
from tools.cli_docs import cli_document
from tools.exit_code_docs import exit_codes_document
from tools.settings_docs import settings_document


def test_every_setting_is_documented() -> None:
    """Each once, in the order of default.toml, with a meaning."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| .* \| (.+) \|$", settings_document(), re.MULTILINE)
    defaults = tomllib.loads(settings_docs._defaults())
    assert [key for key, _ in rows] == [f"{section}.{key}" for section, keys in defaults.items() for key in keys]


def test_a_setting_without_a_comment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin."""
    monkeypatch.setattr(settings_docs, "_defaults", lambda: '[feed]\nwindow = "1h"\n')
    with pytest.raises(ValueError, match=r"feed\.window has no comment"):
        settings_document()


def test_a_code_without_a_description_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin."""
    monkeypatch.delitem(exit_code_docs._ERRORS, 75)
    with pytest.raises(KeyError, match="75"):
        exit_codes_document()


def test_every_command_is_documented() -> None:
    """With its own options; those of all commands stand in one section."""
    text = cli_document()
    assert {"sync", "repair", "fabric shortcuts"} <= set(re.findall(r"^## (.+)$", text, re.MULTILINE))
    assert text.count("--config PATH") == 1
    assert "--allow-removals N" in text
