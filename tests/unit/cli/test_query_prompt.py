"""The prompt of `query`, and when there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from dicom_etl.cli.main import run
from dicom_etl.cli.query import prompt
from dicom_etl.core.errors import UsageError


def asked(*lines: str) -> tuple[list[str], list[str]]:
    """The statements that the prompt gave on, and what it printed before each line; the input ends with the lines."""
    rest: Iterator[str] = iter(lines)
    statements: list[str] = []
    prompts: list[str] = []

    def typed(text: str) -> str:
        prompts.append(text.strip())
        try:
            return next(rest)
        except StopIteration:
            raise EOFError from None

    def show(statement: str) -> None:
        statements.append(statement)
        if "wrong" in statement:
            raise UsageError("query: it does not parse")

    prompt(show, typed)
    return statements, prompts


def test_a_statement_ends_with_a_semicolon_or_an_empty_line() -> None:
    """Several lines are one statement; empty lines before it are nothing."""
    statements, prompts = asked("", "SELECT 1;", "SELECT 2", "FROM study", "", "SHOW TABLES ; ")
    assert statements == ["SELECT 1", "SELECT 2\nFROM study", "SHOW TABLES"]
    assert prompts[2:5] == ["dicom-etl>", "...>", "...>"]


@pytest.mark.parametrize("word", ["exit", "quit;", "EXIT"])
def test_a_word_or_the_end_of_the_input_leaves(word: str) -> None:
    assert asked("SELECT 1;", word, "SELECT 2;")[0] == ["SELECT 1"]
    assert asked("SELECT 1;", "SELECT 2")[0] == ["SELECT 1"], "half a statement is none"


@pytest.mark.parametrize("word", ["help", "HELP;", "?"])
def test_help_needs_no_semicolon(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It names statements that list the views and a view's columns; within a statement it is a word like others."""
    assert asked(word, "SELECT 1;", "SELECT", "help;")[0] == ["SELECT 1", "SELECT\nhelp"]
    said = capsys.readouterr().err
    assert said.startswith("Statements end with ;")
    assert "SHOW VIEWS; lists what can be asked, DESCRIBE instance;" in said


def test_a_wrong_statement_does_not_end_the_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked("wrong;", "SELECT 1;")[0] == ["wrong", "SELECT 1"]
    assert capsys.readouterr().err.splitlines() == ["dicom-etl: query: it does not parse"]


def test_without_a_terminal_a_statement_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe or a scheduler must not wait for somebody who types."""
    monkeypatch.setattr(sys, "argv", ["dicom-etl", "query"])
    with pytest.raises(UsageError, match=r"^query: give a statement, or - to read it from standard input"):
        run()
