"""`verify --columns`: rows taken at random are compared with what the service has, without Spark."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pyarrow as pa
import pytest
from click.testing import CliRunner

from dicom_etl.cli.main import cli
from dicom_etl.commands.columns import verify as verb
from dicom_etl.commands.columns.verify import ColumnsVerification, verify_with
from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.core.errors import DataError
from dicom_etl.core.progress import NullProgress
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.dicomweb.connect import connect
from dicom_etl.lake.delta.commit import append_rows
from dicom_etl.lake.delta.table import STATISTICS_PROPERTY, create_table
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.open import existing_lake, init_lake
from dicom_etl.lake.paths import lake_paths
from dicom_etl.outputs.columns.design import design_of
from dicom_etl.outputs.stored_tags import NAMES

DESIGN = design_of(["SliceThickness", "KVP", "Rows"], imaging=False)
ROW = {
    "partitionName": "Microsoft.Default", "studyInstanceUid": "9", "seriesInstanceUid": "9.1", "headerState": "ok",
    "headerQuality": "111", "sliceThickness": 1.5, "kvp": 120.0, "rows": 512,
}  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A lake with 40 rows of `instance_tags`, of which ten lack their headers."""
    texts = [f"lake.root={tmp_path}/lake", "dicom.base_url=http://127.0.0.1:1", "feed.start=2024-05-01T00:00:00Z"]
    loaded = load_settings(None, texts, {}, tmp_path)
    init_lake(lake_paths(loaded), service_fingerprint(loaded.dicom.base_url))
    lake = existing_lake(loaded).lake
    rows = [{**ROW, "sopInstanceUid": f"9.1.{number}"} for number in range(30)]
    rows += [{**ROW, "sopInstanceUid": f"9.2.{number}", "headerState": "missing"} for number in range(10)]
    columns = [*INSTANCE_KEY, *(name for name in ROW if name not in INSTANCE_KEY)]
    content = pa.table({name: [row[name] for row in rows] for name in columns})
    for name in NAMES:
        told = {**lake.identity.properties, "dicomEtl.columns": DESIGN.to_json(), STATISTICS_PROPERTY: "sopInstanceUid"}
        table = create_table(lake.path(name), content.schema, name=name, properties=told)
        append_rows(table, content, app_id=lake.app_id(name), run_id=1, details={})
    return loaded


def compared(settings: Settings, rows: int, served: dict[str, dict[str, Any] | None]) -> ColumnsVerification:
    """The comparison with a service that has the rows' values, but for ``served``; None: the instance is gone."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v2/partitions":
            return httpx.Response(400)
        usual = {"00180050": {"vr": "DS", "Value": [1.5]}, "00180060": {"vr": "DS", "Value": ["120"]}}
        usual["00280010"] = {"vr": "US", "Value": [512]}
        more = served.get(request.url.path.split("/")[-2], {})
        if more is None:
            return httpx.Response(404)
        body = httpx.ByteStream(json.dumps([usual | more]).encode())
        return httpx.Response(200, headers={"content-type": "application/dicom+json"}, stream=body)

    with connect(settings.dicom, sleep=lambda _: None, transport=httpx.MockTransport(answer)) as client:
        return verify_with(client, settings, rows, random=Random(1), progress=NullProgress())


CHANGED: dict[str, dict[str, Any] | None] = {
    "9.1.3": {"00180060": {"vr": "DS", "Value": [80]}, "00280010": {"vr": "US"}},
    "9.1.4": {"00180060": {"vr": "DS", "Value": ["many"]}},
    "9.1.5": None,
}


def test_every_row_with_a_header_can_be_compared(settings: Settings) -> None:
    assert compared(settings, 100, {}) == ColumnsVerification(30, 30, 0, 0, {})
    found = compared(settings, 100, CHANGED)
    assert found == ColumnsVerification(30, 27, 2, 1, {"kvp": 2, "rows": 1})


def test_the_rows_are_taken_at_random(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is as likely as the others: of 30 rows 5 are taken 600 times, and each comes about 100 times."""
    assert compared(settings, 5, {}).compared == 5
    table = verb.stored_tags(existing_lake(settings).lake).tables["instance_tags"]
    random, often = Random(1), dict.fromkeys((f"9.1.{number}" for number in range(30)), 0)
    rows = list(verb.iterate_rows(table, INSTANCE_KEY, verb.pc.field("headerState") == "ok"))
    monkeypatch.setattr(verb, "iterate_rows", lambda *_: rows)
    for _ in range(600):
        keys = verb._sample(table, 5, random)
        assert len(set(keys)) == 5
        for key in keys:
            often[key[3]] += 1
    assert (min(often.values()) > 60, max(often.values()) < 140) == (True, True)


def test_the_command_names_columns_and_no_values(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """65 where rows differ."""
    found = ColumnsVerification(30, 27, 2, 1, {"kvp": 2})
    monkeypatch.setattr(verb, "verify_columns", lambda *_, **__: found)
    root = settings.lake.root
    words = ["verify", "--set", f"lake.root={root}", "--columns", "30"]
    ended = CliRunner().invoke(cli, words)
    assert isinstance(ended.exception, DataError)
    assert "2 rows of instance_tags differ" in str(ended.exception)
    assert ended.output.split() == [
        "compared",
        "30",
        "equal",
        "27",
        "differing",
        "2",
        "gone",
        "1",
        "kvp",
        "differs",
        "2",
    ]
    ended = CliRunner().invoke(cli, [*words, "--json"])
    assert json.loads(ended.output.splitlines()[0]) == {
        "compared": 30, "equal": 27, "differing": 2, "gone": 1, "columnDifferences": {"kvp": 2},
    }  # fmt: skip


def test_without_tag_tables_there_is_nothing_to_compare(tmp_path: Path) -> None:
    texts = [f"lake.root={tmp_path}/lake", "dicom.base_url=http://127.0.0.1:1", "feed.start=2024-05-01T00:00:00Z"]
    loaded = load_settings(None, texts, {}, tmp_path)
    init_lake(lake_paths(loaded), service_fingerprint(loaded.dicom.base_url))
    with pytest.raises(DataError, match="dicom-etl columns update"):
        compared(loaded, 5, {})
