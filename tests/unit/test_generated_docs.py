"""What the generators of docs/ find, and what they refuse."""

from __future__ import annotations

import re
import tomllib

import pytest

from tools import exit_code_docs, settings_docs
from tools.cli_docs import cli_document
from tools.exit_code_docs import exit_codes_document
from tools.log_docs import LogEvent, log_events, log_events_document
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


LOGGING = """
log = logging.getLogger(__name__)

def counts(rows):
    return {"rows": rows, "seconds": 1.0}

def work(error):
    fields = {"run_id": 1, **counts(2)}
    log.info("a merge " "done", extra={**fields, "table": "study"})
    log.log(logging.WARNING if error else logging.DEBUG, "an error met")
    math.log(2)
"""


def test_a_log_event_is_documented_with_its_level_and_fields() -> None:
    """From a dictionary, a name and a function; what is no logger's call is left out."""
    assert list(log_events(LOGGING, "ours")) == [
        LogEvent("a merge done", "ours", "info", ("run_id", "rows", "seconds", "table")),
        LogEvent("an error met", "ours", "warning or debug", ()),
    ]
    assert len(re.findall(r"^\| .+ \| `dicom_etl\.[a-z_.]+` \|$", log_events_document(), re.MULTILINE)) > 20


@pytest.mark.parametrize(
    "call", ['log.info(f"{n} rows")', 'log.info("%d rows", 1)', "log.info(text)", 'log.info("a row", extra=given)']
)
def test_a_log_event_that_cannot_be_read_is_refused(call: str) -> None:
    """The broken twins: an event that is no constant may carry data of a patient."""
    with pytest.raises(ValueError, match=r"ours, line 2: the (event|fields)"):
        list(log_events(f"log = logging.getLogger(__name__)\n{call}\n", "ours"))
