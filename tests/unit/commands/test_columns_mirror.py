"""Tags by the dozen at the command line: `columns mirror`, `columns add --all`, `columns backfill --from-service`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from dicom_emulator.serve import Emulator, serve_in_thread
from dicom_etl.cli.main import cli
from dicom_etl.commands.columns import choose_many, from_service
from dicom_etl.commands.columns.choose import listed
from dicom_etl.commands.columns.choose_many import Mirrored, mirror
from dicom_etl.core.errors import UsageError
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.open import init_lake
from dicom_etl.lake.paths import lake_paths
from dicom_etl.outputs.execution import Counts, Execution
from support.results import NOW

TAGS = [
    {"path": "00080070", "vr": "LO", "level": "Instance"},  # the set imaging has it, at its own level
    {"path": "00181315", "vr": "CS", "level": "Series"},
    {"path": "00102160", "vr": "SH", "level": "Study"},
    {"path": "12051003", "vr": "IS", "level": "Instance", "privateCreator": "ACME"},
]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with serve_in_thread() as running:
        yield running


@pytest.fixture
def settings(emulator: Emulator, tmp_path: Path) -> Settings:
    texts = [f"lake.root={tmp_path}/lake", f"dicom.base_url={emulator.base_url}", "feed.start=2024-05-01T00:00:00Z"]
    loaded = load_settings(None, texts, {}, tmp_path)
    init_lake(lake_paths(loaded), service_fingerprint(loaded.dicom.base_url))
    return loaded


def add_to_service(emulator: Emulator, tags: list[dict[str, str]]) -> None:
    """The service adds them by an operation, which is over when it answers."""
    answer = httpx.post(f"{emulator.base_url}/v2/extendedquerytags", json=tags)
    assert answer.status_code == 202, answer.text
    while httpx.get(answer.json()["href"]).json()["status"] != "succeeded":
        time.sleep(0.05)


def test_what_the_service_searches_becomes_columns_and_what_identifies_is_left_out(
    emulator: Emulator, settings: Settings
) -> None:
    """A repetition adds nothing; with --identifying private tags and the patient's follow."""
    assert mirror(settings) == Mirrored([], (), ())
    add_to_service(emulator, TAGS)
    for _ in range(2):
        found = mirror(settings)
        assert [(one.column.name, one.column.level, one.source) for one in found.columns] == [
            ("manufacturer", "series", "imaging"),
            ("variableFlipAngleFlag", "series", "added"),
        ]
        assert sorted(found.identifying) == ["1205,xx03@ACME:long", "EthnicGroup"]
        assert found.impossible == ()
    found = mirror(settings, identifying=True)
    assert sorted(one.column.name for one in found.columns[2:]) == ["acme_1205_03", "ethnicGroup"]
    assert found.identifying == ()
    assert {one.column.name for one in listed(settings)[-3:]} == {
        "variableFlipAngleFlag",
        "ethnicGroup",
        "acme_1205_03",
    }


def test_mirror_says_what_it_has_left_out(emulator: Emulator, settings: Settings) -> None:
    add_to_service(emulator, TAGS[1:3])
    given = [f"lake.root={settings.lake.root}", f"dicom.base_url={emulator.base_url}"]
    ended = CliRunner().invoke(cli, ["columns", "mirror", *(f"--set={text}" for text in given)])
    assert ended.exit_code == 0
    assert "left out, since they identify patients: EthnicGroup; --identifying adds them" in ended.output
    assert "variableFlipAngleFlag" in ended.output


@pytest.mark.parametrize("words", [[], ["KVP", "--all"]])
def test_add_takes_tags_or_all_and_not_both(words: list[str], settings: Settings) -> None:
    ended = CliRunner().invoke(cli, ["columns", "add", *words, "--set", f"lake.root={settings.lake.root}"])
    assert isinstance(ended.exception, UsageError)
    assert "--all" in str(ended.exception)


def test_all_tags_are_asked_for_with_what_was_said_of_them(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(choose_many, "add_all", lambda _, **how: asked.append(how) or [])
    CliRunner().invoke(
        cli, ["columns", "add", "--all", "--level", "series", "--set", f"lake.root={settings.lake.root}"]
    )
    assert [(one["level"], one["identifying"]) for one in asked] == [("series", False)]


def test_a_backfill_from_the_service_adds_up_its_batches(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def done(mode: Any, **counts: int) -> Execution:
        return Execution(
            output="columns", execution_id=1, mode=mode, status="succeeded", from_run=1, to_run=1, started_at=NOW,
            finished_at=NOW, counts=Counts(**counts),
        )  # fmt: skip

    batches = [
        done("full", touched=9, written=9),
        done("service", touched=2, written=2),
        done("service", touched=2, written=1, failed=1),
    ]
    monkeypatch.setattr(from_service, "backfill_from_service", lambda *_, **__: iter(batches))
    words = ["columns", "backfill", "--from-service", "--set", f"lake.root={settings.lake.root}"]
    told = CliRunner().invoke(cli, words).output
    assert told.strip() == "the service gave the headers of 3 instances, and none for 1"
    rows = [json.loads(line) for line in CliRunner().invoke(cli, [*words, "--json"]).output.splitlines()]
    assert [(row["mode"], row["written"], row["failed"]) for row in rows] == [
        ("full", 9, 0), ("service", 2, 0), ("service", 1, 1),
    ]  # fmt: skip
