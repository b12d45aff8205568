"""Shortcuts in Fabric: right targets, no needless change, nothing that is not ours overwritten."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from dicom_etl.core.errors import (
    AccessDenied,
    ConfigurationError,
    DataError,
    DicomEtlError,
    ProtocolError,
    ServiceUnavailable,
)
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.outputs.fabric import api, responses, shortcuts
from dicom_etl.outputs.fabric.api import LakehouseShortcuts
from dicom_etl.outputs.fabric.tag_tables import tag_tables
from dicom_etl.remote import identity
from dicom_etl.remote.http import transport
from dicom_etl.remote.storage import Storage
from support.fabric_fake import (
    CANARY,
    CONNECTION,
    LAKEHOUSE,
    TOKEN,
    WORKSPACE,
    FabricFake,
    Scripted,
    error,
    fabric_fake,
)

ROOT = "abfss://dicom@contoso.dfs.core.windows.net/analytics"
PLACES = ["Tables/instance", "Tables/series", "Tables/study", "Tables/run", "Files/DICOM"]


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def fake() -> Iterator[FabricFake]:
    with fabric_fake() as running:
        yield running


def texts(url: str = "http://127.0.0.1:1/v1", *more: str) -> list[str]:
    """The settings as texts of --set; later ones win."""
    return [
        f"lake.root={ROOT}",
        f"fabric.workspace={WORKSPACE}",
        f"fabric.lakehouse={LAKEHOUSE}",
        f"fabric.connection={CONNECTION}",
        f"fabric.api_url={url}",
        "fabric.auth=token",
        *more,
    ]


def settings(url: str = "http://127.0.0.1:1/v1", *more: str) -> Settings:
    return load_settings(None, texts(url, *more), {}, Path("/nonexistent"))


def share(fake: FabricFake, *more: str, dry_run: bool = False, clock: Clock | None = None) -> dict[str, str]:
    """What became of each shortcut."""
    clock, chosen = clock or Clock(), settings(fake.url, *more)
    with LakehouseShortcuts(
        chosen.fabric, lambda _renew: TOKEN, sleep=clock.sleep, monotonic=clock.monotonic
    ) as lakehouse:
        done = shortcuts.share(shortcuts.shortcuts(chosen), lakehouse, dry_run=dry_run)
        return {each.shortcut.place: each.outcome for each in done}


def refused(fake: FabricFake, *more: str, kind: type[DicomEtlError], clock: Clock | None = None) -> str:
    with pytest.raises(kind) as caught:
        share(fake, *more, clock=clock)
    assert type(caught.value) is kind
    assert CANARY not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def targets(fake: FabricFake) -> dict[str, dict[str, str]]:
    return {place: document["target"]["adlsGen2"] for place, document in fake.shortcuts.items()}


# --- what is made


def test_three_tables_the_ledger_and_the_files_are_shared(fake: FabricFake) -> None:
    """Each with the DFS endpoint, the container first in its path, and our connection; nothing else is sent."""
    assert share(fake) == dict.fromkeys(PLACES, "created")

    assert fake.posts == ["Abort"] * 5
    folders = [
        "/dicom/analytics/instance",
        "/dicom/analytics/series",
        "/dicom/analytics/study",
        "/dicom/analytics/run",
        "/dicom",
    ]
    assert targets(fake) == {
        place: {"location": "https://contoso.dfs.core.windows.net", "subpath": folder, "connectionId": CONNECTION}
        for place, folder in zip(PLACES, folders, strict=True)
    }


def test_paths_schema_and_names_are_settable(fake: FabricFake) -> None:
    """Tables keep their names wherever they lie; a schema is a folder of Tables; files.root leads elsewhere."""
    share(
        fake,
        "lake.root=abfss://dicom@contoso.dfs.core.windows.net",
        "lake.instance_path=a/i",
        "fabric.schema=dbo",
        "fabric.files_name=scans",
        "files.root=abfss://pixels@contoso.dfs.core.windows.net/AHDS/",
    )

    assert {place: target["subpath"] for place, target in targets(fake).items()} == {
        "Tables/dbo/instance": "/dicom/a/i",
        "Tables/dbo/series": "/dicom/series",
        "Tables/dbo/study": "/dicom/study",
        "Tables/dbo/run": "/dicom/run",
        "Files/scans": "/pixels/AHDS",
    }


def test_without_a_name_no_files_are_shared(fake: FabricFake) -> None:
    """fabric.files_name = "" leaves the tables."""
    assert list(share(fake, "fabric.files_name=")) == PLACES[:4]


def lake_with(folder: Path, *names: str) -> tuple[Settings, Callable[[Settings], Any]]:
    """Settings of a lake in Azure, and a storage on which it is a local folder that has these tables."""
    for name in names:
        write_deltalake(folder / name, pa.table({"sequence": [1]}))
    return settings("http://127.0.0.1:1/v1", f"lake.root={folder}"), lambda _settings: Storage()


def test_tag_tables_are_shared_where_there_are_any(fake: FabricFake, tmp_path: Path) -> None:
    """Those that lie in the lake get a shortcut beside the others, and no other folder; made once, then unchanged."""
    local, storage = lake_with(tmp_path, "instance_tags", "study_tags", "header_quality", "series")
    names = tag_tables(local, storage)
    assert names == ("instance_tags", "study_tags", "header_quality")
    assert tag_tables(lake_with(tmp_path / "other", "series")[0], storage) == ()
    chosen = settings(fake.url, "fabric.schema=dbo")
    with LakehouseShortcuts(chosen.fabric, lambda _renew: TOKEN) as lakehouse:
        wanted = [*shortcuts.shortcuts(chosen), *shortcuts.tag_shortcuts(chosen, names)]
        done = [[one.outcome for one in shortcuts.share(wanted, lakehouse)] for _ in range(2)]
    assert done == [["created"] * 8, ["unchanged"] * 8]
    assert targets(fake)["Tables/dbo/study_tags"]["subpath"] == "/dicom/analytics/study_tags"
    assert set(fake.shortcuts) == {place.replace("Tables/", "Tables/dbo/") for place in PLACES} | {
        "Tables/dbo/instance_tags", "Tables/dbo/study_tags", "Tables/dbo/header_quality",
    }  # fmt: skip


def test_without_the_right_to_look_tag_tables_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A warning names the role; the other shortcuts need none on the storage."""

    def refused(_settings: Settings) -> Any:
        raise AccessDenied("instance_tags: the storage refused our identity")

    with caplog.at_level(logging.WARNING, logger="dicom_etl"):
        assert tag_tables(settings(), refused) == ()
    (record,) = caplog.records
    assert "Storage Blob Data Reader" in record.message
    assert record.__dict__["error"] == "AccessDenied"


# --- once more


def check_repeated(fake: FabricFake) -> None:
    """The second call finds all as it should be: one GET, no POST."""
    share(fake)
    assert len(fake.posts) == 5
    fake.seen.clear()
    assert share(fake) == dict.fromkeys(PLACES, "unchanged")
    assert fake.seen == [("GET", None)]


def check_repeated_as_fabric(fake: FabricFake) -> None:
    """So it does when Fabric spells slashes and the case of ids in its own way."""
    fake.as_fabric = True
    check_repeated(fake)


def check_moved(fake: FabricFake) -> None:
    """A shortcut that leads elsewhere, and only that one, is overwritten, and never made anew."""
    share(fake)
    fake.shortcuts["Tables/series"]["target"]["adlsGen2"]["subpath"] = "/dicom/Analytics/series"
    fake.seen.clear()
    assert share(fake) == dict.fromkeys(PLACES, "unchanged") | {"Tables/series": "updated"}
    assert fake.posts == ["OverwriteOnly"]
    assert targets(fake)["Tables/series"]["subpath"] == "/dicom/analytics/series"


def check_real_table(fake: FabricFake) -> None:
    """A real table of the name is an error (65), and is there afterwards; what came before stays made."""
    fake.tables.add("Tables/series")
    message = refused(fake, kind=DataError)
    assert message.startswith("Tables/series: the lakehouse has a table or folder of this name")
    assert "409, EntityConflict" in message
    assert fake.tables == {"Tables/series"}
    assert list(fake.shortcuts) == ["Tables/instance"]


def check_lost_answer(fake: FabricFake) -> None:
    """A POST that was done though its answer was lost is not taken for a real table."""
    fake.script = [Scripted(200, {}, b'{"value": []}'), Scripted(503, late=True)]
    assert share(fake) == dict.fromkeys(PLACES, "created")
    assert fake.posts == ["Abort"] * 6
    assert list(fake.shortcuts) == PLACES


def check_pages(fake: FabricFake) -> None:
    """A list in several pages is read to its end, from our own address."""
    share(fake)
    fake.seen.clear()
    fake.page_size = 1
    assert set(share(fake).values()) == {"unchanged"}
    assert fake.seen == [("GET", None)] * 5


def check_redirect(fake: FabricFake) -> None:
    """A redirect is not followed (78), so the token goes nowhere else."""
    with fabric_fake() as elsewhere:
        fake.script = [Scripted(307, {"Location": elsewhere.url + fake_path()})]
        assert "redirects (307)" in refused(fake, kind=ConfigurationError)
        assert elsewhere.seen == []


def check_errors_quote_nothing(fake: FabricFake) -> None:
    """Of Fabric's error only its code is told, and only when it is a word."""
    fake.script = [error(418, CANARY)]
    assert refused(fake, kind=ProtocolError) == "Fabric answered status 418 to a GET request"
    fake.script = [error(418, "Teapot1")]
    assert refused(fake, kind=ProtocolError) == "Fabric answered status 418, Teapot1 to a GET request"


def fake_path() -> str:
    return f"/workspaces/{WORKSPACE}/items/{LAKEHOUSE}/shortcuts"


CHECKS = [
    check_repeated,
    check_repeated_as_fabric,
    check_moved,
    check_real_table,
    check_lost_answer,
    check_pages,
    check_redirect,
    check_errors_quote_nothing,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_guards_hold(check: Callable[[FabricFake], None], fake: FabricFake) -> None:
    """Each check passes on the code as it is."""
    check(fake)


def _always_posts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LakehouseShortcuts, "listed", lambda _self: {})


def _compares_letter_by_letter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(responses, "as_target", responses.Target)


def _ignores_case_of_paths(patch: pytest.MonkeyPatch) -> None:
    as_target = responses.as_target
    patch.setattr(responses, "as_target", lambda location, path, id_: as_target(location, path.lower(), id_))


def _overwrites_whatever_is_there(patch: pytest.MonkeyPatch) -> None:
    post = LakehouseShortcuts._post
    patch.setattr(
        LakehouseShortcuts, "_post", lambda self, shortcut, _policy: post(self, shortcut, "CreateOrOverwrite")
    )


def _never_overwrites(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LakehouseShortcuts, "overwrite", LakehouseShortcuts.make)


def _does_not_look_again(patch: pytest.MonkeyPatch) -> None:
    listed, asked = LakehouseShortcuts.listed, []
    patch.setattr(LakehouseShortcuts, "listed", lambda self: {} if asked else (asked.append(1), listed(self))[1])


def _reads_one_page(patch: pytest.MonkeyPatch) -> None:
    page = api.page
    patch.setattr(api, "page", lambda answer: (page(answer)[0], None))


def _encodes_the_token_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(api, "unquote", lambda text: text)


def _follows_redirects(patch: pytest.MonkeyPatch) -> None:
    client = httpx.Client
    patch.setattr(transport.httpx, "Client", lambda **options: client(**options | {"follow_redirects": True}))


def _repeats_any_code(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(responses, "_CODE", re.compile(".*"))


MUTANTS: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[FabricFake], None]]] = [
    (_always_posts, check_repeated),
    (_compares_letter_by_letter, check_repeated_as_fabric),
    (_ignores_case_of_paths, check_moved),
    (_overwrites_whatever_is_there, check_real_table),
    (_overwrites_whatever_is_there, check_moved),
    (_never_overwrites, check_moved),
    (_does_not_look_again, check_lost_answer),
    (_reads_one_page, check_pages),
    (_encodes_the_token_twice, check_pages),
    (_follows_redirects, check_redirect),
    (_repeats_any_code, check_errors_quote_nothing),
]


@pytest.mark.parametrize(("mutant", "check"), MUTANTS, ids=lambda each: each.__name__.strip("_"))
def test_broken_variants_are_caught(
    mutant: Callable[[pytest.MonkeyPatch], None],
    check: Callable[[FabricFake], None],
    fake: FabricFake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a guard its check fails."""
    mutant(monkeypatch)
    with pytest.raises((AssertionError, DicomEtlError, pytest.fail.Exception)):
        check(fake)


# --- only looking, and the wrong moment


def test_a_dry_run_changes_nothing(fake: FabricFake) -> None:
    """It says what would be done after one GET."""
    share(fake)
    del fake.shortcuts["Tables/study"]
    fake.shortcuts["Files/DICOM"]["target"] = {"type": "OneLake", "oneLake": {"path": "Files/x"}}
    fake.seen.clear()

    expected = ["unchanged", "unchanged", "would create", "unchanged", "would update"]
    assert share(fake, dry_run=True) == dict(zip(PLACES, expected, strict=True))
    assert fake.seen == [("GET", None)]
    # The same for real: a shortcut to something else than Azure storage is turned round too.
    assert list(share(fake).values()) == ["unchanged", "unchanged", "created", "unchanged", "updated"]


def test_a_shortcut_made_meanwhile_by_another_is_not_overwritten(fake: FabricFake) -> None:
    """Listed as missing, there when it is made, and leading elsewhere: 75, and it stays."""
    share(fake)
    fake.shortcuts["Tables/instance"]["target"]["adlsGen2"]["subpath"] = "/other"
    fake.script = [Scripted(200, {}, b'{"value": []}')]

    assert "Tables/instance" in refused(fake, kind=ServiceUnavailable)
    assert targets(fake)["Tables/instance"]["subpath"] == "/other"


# --- errors


def test_throttling_is_waited_for(fake: FabricFake) -> None:
    """429 with Retry-After, also before the first answer: not earlier than asked, and then all is made."""
    clock = Clock()
    fake.script = [error(429, "RequestBlocked", Retry_After="55"), Scripted(502), Scripted(500)]

    assert set(share(fake, clock=clock).values()) == {"created"}
    assert 1055 <= clock.now < 1100


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_retries_have_an_end(fake: FabricFake, status: int) -> None:
    """What does not pass within five minutes is 75, after a bounded number of requests."""
    clock = Clock()
    fake.script = [error(status)] * 100

    message = refused(fake, kind=ServiceUnavailable, clock=clock)
    assert f"status {status}, UnknownError" in message
    assert clock.now <= 1300
    assert 2 < len(fake.seen) <= 20


def test_a_long_wait_is_not_begun(fake: FabricFake) -> None:
    """An hour of Retry-After ends the command at once, and is told."""
    clock = Clock()
    fake.script = [error(429, Retry_After="3600")]

    assert "asks to wait 3600 s" in refused(fake, kind=ServiceUnavailable, clock=clock)
    assert (clock.now, len(fake.seen)) == (1000, 1)


def test_nobody_at_the_address_is_said_soon() -> None:
    """After half a minute, with the setting to look at."""
    clock = Clock()
    message = refused(FabricFake(url="http://127.0.0.1:1/v1"), kind=ServiceUnavailable, clock=clock)
    assert "check fabric.api_url" in message
    assert clock.now <= 1030


LISTED = Scripted(200, {}, b'{"value": []}')


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        ([error(401)] * 2, AccessDenied, "role Contributor in the workspace"),
        ([error(403, "InsufficientPrivileges")], AccessDenied, "role Contributor in the workspace"),
        ([LISTED, error(403)], AccessDenied, "the right to use the connection"),
        ([error(404, "WorkspaceNotFound")], ConfigurationError, "fabric.workspace, fabric.lakehouse"),
        ([LISTED, error(404)], ConfigurationError, "fabric.connection"),
        ([LISTED, error(400, "BadRequest")], ConfigurationError, "fabric.connection: Fabric refuses"),
        ([error(400)], ProtocolError, "status 400"),
        ([LISTED, Scripted(202)], ProtocolError, "status 202 to a POST"),
        ([Scripted(200, {}, b"<html>")], ProtocolError, "list of shortcuts"),
        ([Scripted(200, {}, b'{"value": [{"path": 1}]}')], ProtocolError, "list of shortcuts"),
        ([Scripted(200, {}, b'{"value": [], "continuationToken": "a"}')] * 1000, ProtocolError, "no end"),
        ([Scripted(418, {}, b"x" * (2 << 20))], ProtocolError, "longer"),
    ],
)
def test_each_answer_has_its_error(
    fake: FabricFake, script: list[Scripted], kind: type[DicomEtlError], said: str
) -> None:
    """Roles 77, ids and targets 78, what the API does not describe 70; and nothing is made."""
    fake.script = list(script)
    assert said in refused(fake, kind=kind)
    assert fake.shortcuts == {}


def test_what_is_done_is_told_before_an_error(fake: FabricFake) -> None:
    """The outcomes come one by one, so those before the failure are known."""
    fake.script = [LISTED, Scripted(201), error(403)]
    chosen = settings(fake.url)
    with LakehouseShortcuts(chosen.fabric, lambda _renew: TOKEN) as lakehouse:
        done = shortcuts.share(shortcuts.shortcuts(chosen), lakehouse)
        assert next(done).outcome == "created"
        with pytest.raises(AccessDenied):
            next(done)


# --- settings


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("fabric.connection=", "fabric.connection: not set; give the id by --connection or in the settings"),
        ("lake.root=", "lake.root: Fabric's shortcuts lead to Azure storage only; expected abfss://"),
        ("lake.root=/data/lake", "lake.root: Fabric's shortcuts lead to Azure storage only; expected abfss://"),
        ("lake.root=abfss://a@onelake.dfs.fabric.microsoft.com/x", "lake.root: Fabric's shortcuts"),
        ("files.root=/data/files", "files.root: Fabric's shortcuts lead to Azure storage only"),
        ("files.root=abfss://c@other.dfs.core.windows.net", "files.root: lies in another storage account"),
        ("fabric.workspace=../x", "--set: fabric.workspace: expected an id such as"),
        ("fabric.files_name=a/b", "--set: fabric.files_name: expected a name of letters"),
        ("fabric.schema=..", "--set: fabric.schema: expected a name of letters"),
        ("fabric.auth=none", "--set: fabric.auth: expected one of azure, token"),
        ("fabric.token_env=eyJ0", "--set: fabric.token_env: expected the name of a variable"),
        ("fabric.api_url=http://api.example.com/v1", "fabric.api_url: expected https://, a token is sent"),
        ("fabric.api_url=", "--set: fabric.api_url: expected an address that starts with https://"),
    ],
)
def test_wrong_settings_are_one_clear_line(override: str, said: str) -> None:
    """78, before anything is asked."""
    with pytest.raises(ConfigurationError) as caught:
        shortcuts.shortcuts(settings("https://api.example.com/v1", override))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_all_missing_ids_are_named_at_once() -> None:
    """One line with every key and its option."""
    chosen = load_settings(None, [f"lake.root={ROOT}"], {}, Path("/nonexistent"))
    with pytest.raises(ConfigurationError, match=r"^fabric\.workspace, fabric\.lakehouse, fabric\.connection: not set"):
        shortcuts.shortcuts(chosen)
    assert chosen.fabric.api_url == "https://api.fabric.microsoft.com/v1"


PRIVATE = "abfss://private@contoso.dfs.core.windows.net/x"


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ([], True),
        ([f"lake.private_root={PRIVATE}", f"files.root={PRIVATE}"], True),
        ([f"lake.private_root={PRIVATE}"], False),
        (["lake.private_root=/data/private"], False),
        (["files.root=abfss://dicom@contoso.dfs.core.windows.net/AHDS"], False),
        (["files.root=abfss://dicom@contoso.dfs.core.windows.net/ana"], False),
        (["fabric.files_name="], False),
    ],
)
def test_headers_that_the_files_would_share_are_said(
    more: list[str], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning when `change` lies in what the files' shortcut reaches, and none otherwise."""
    with caplog.at_level(logging.WARNING, logger="dicom_etl"):
        shortcuts.shortcuts(settings("https://api.example.com/v1", *more))
    assert bool(caplog.records) is warned
    assert all("change and rejected" in record.message for record in caplog.records)


# --- identity and command line


def test_the_token_comes_from_the_variable_or_from_azure_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """By fabric.auth: the variable of fabric.token_env, or azure-identity with Fabric's scope."""
    by_variable = settings().fabric
    assert identity.fabric_tokens(by_variable, {"DICOM_ETL_FABRIC_TOKEN": " t \n"})(False) == "t"
    with pytest.raises(ConfigurationError, match=r"the variable that fabric\.token_env names is not set"):
        identity.fabric_tokens(by_variable, {"DICOM_ETL_TOKEN": "the DICOM service's"})

    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        identity, "azure_tokens", lambda scope, name: asked.append((scope, name)) or (lambda _renew: "a")
    )
    by_azure = settings("https://api.example.com/v1", "fabric.auth=azure").fabric
    assert identity.fabric_tokens(by_azure)(False) == "a"
    assert asked == [("https://api.fabric.microsoft.com/.default", "Microsoft Fabric")]


class EmptyAccount(BaseHTTPRequestHandler):
    """A storage account in which nothing lies: enough of the protocol for looking for a table."""

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        listing = "comp=list" in self.path
        body = b"<EnumerationResults><Blobs></Blobs><NextMarker/></EnumerationResults>" if listing else b"<Error/>"
        self.send_response(200 if listing else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def typed() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """`dicom-etl fabric …` in a process of its own; the lake's account is empty."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyAccount) as account:
        thread = Thread(target=account.serve_forever)
        thread.start()
        yield partial(_typed, f"http://127.0.0.1:{account.server_port}")
        account.shutdown()
        thread.join()


def _typed(account: str, *words: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "DICOM_ETL_FABRIC_TOKEN": token,
        "DICOM_ETL_CONFIG": "/dev/null",
        "DICOM_ETL__STORAGE__AUTH": "key",
        "DICOM_ETL__STORAGE__KEY_ENV": "KEY_OF_NOTHING",
        "DICOM_ETL__STORAGE__ENDPOINT": account,
        "KEY_OF_NOTHING": base64.b64encode(b"key").decode(),
    }
    command = [sys.executable, "-m", "dicom_etl", "fabric", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


Typed = Callable[..., subprocess.CompletedProcess[str]]


def test_the_command_makes_them_and_says_so(fake: FabricFake, typed: Typed) -> None:
    """Ids as options; a line for each shortcut, or an object with --json; 0."""
    given = [f"--set={text}" for text in texts(fake.url, f"lake.private_root={PRIVATE}") if "fabric.w" not in text]
    words = ["shortcuts", *given, "--workspace", WORKSPACE]

    first, again = typed(*words), typed(*words, "--json")

    assert (first.returncode, again.returncode, first.stderr, again.stderr) == (0, 0, "", "")
    assert first.stdout.splitlines()[0] == (
        "created  Tables/instance -> https://contoso.dfs.core.windows.net/dicom/analytics/instance"
    )
    rows: list[dict[str, Any]] = [json.loads(line) for line in again.stdout.splitlines()]
    assert [(row["shortcut"], row["outcome"]) for row in rows] == [(place, "unchanged") for place in PLACES]
    assert rows[4]["target"] == "https://contoso.dfs.core.windows.net/dicom"


def test_the_command_ends_with_the_code_of_its_error(fake: FabricFake, typed: Typed) -> None:
    """77 for a wrong token, which is not shown; 64 for an id that is none."""
    given = [f"--set={text}" for text in texts(fake.url)]

    denied = typed("shortcuts", *given, token="wrong-token")
    wrong = typed("shortcuts", *given, "--lakehouse", "my lakehouse")

    assert (denied.returncode, denied.stdout) == (77, "")
    assert denied.stderr.count("\n") == 2  # the warning of the shared headers, and the error
    assert "Contributor" in denied.stderr
    assert "wrong-token" not in denied.stderr
    assert (wrong.returncode, wrong.stdout) == (64, "")
    assert wrong.stderr.startswith("dicom-etl: --lakehouse: expected an id such as")


def test_the_guide_asks_for_columns_that_there_are() -> None:
    """Every camelCase name in the queries of docs/fabric.md is a column of docs/tables.md, named by AS, or a tag."""
    docs = Path(__file__).parents[3] / "docs"
    columns = set(re.findall(r"^\| `(\w+)` \|", (docs / "tables.md").read_text(encoding="utf-8"), re.MULTILINE))
    queries = re.findall(r"```sql\n(.*?)```", (docs / "fabric.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(queries) == 4

    asked = set(re.findall(r"\b[a-z]+(?:[A-Z][a-z]*)+\b", "".join(queries)))
    named = set(re.findall(r"\bAS (\w+)", "".join(queries)))
    assert len(asked - named) > 10
    assert asked - named - columns == {"sliceThickness", "patientAge"}
