"""`dicom-etl doctor`: what each check finds, and that no check hides another."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pyarrow as pa
import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from deltalake import write_deltalake
from fsspec.asyn import get_loop
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from dicom_emulator.http.tokens import NOBODY, READER
from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import Emulator, serve_in_thread
from dicom_etl.commands.doctor import machine as doctor_machine
from dicom_etl.commands.doctor import service
from dicom_etl.commands.doctor.check import CheckResult, exit_code
from dicom_etl.commands.doctor.doctor import doctor
from dicom_etl.commands.doctor.machine import memory_finding
from dicom_etl.commands.doctor.service import contact, service_findings
from dicom_etl.commands.doctor.storage import probe, storage_findings
from dicom_etl.core.errors import (
    AccessDenied,
    ConfigurationError,
    DicomEtlError,
    ServiceUnavailable,
    StorageError,
    UnknownIdentity,
)
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings, Spark
from dicom_etl.lake.lake_id import new_identity
from dicom_etl.lake.ledger import create_ledger
from dicom_etl.lake.paths import lake_paths
from dicom_etl.remote.storage import Storage
from dicom_etl.tables.engine import java
from dicom_etl.tables.engine.jars import Jar

TOKEN = "sesame-4711"
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
SERVICE_CHECKS = ["address", "connection", "clock", "token", "role"]
MACHINE_CHECKS = ["memory", "java", "jars", "versions"]
ALL_CHECKS = ["settings", *SERVICE_CHECKS, "lake.root", "lake.private_root", "lake", *MACHINE_CHECKS]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A service of the test's own that takes the token of a reader and one of nobody, at noon."""
    with serve_in_thread(EmulatorOptions(tokens={TOKEN: READER, "of-nobody": NOBODY})) as running:
        running.service.clock.freeze(NOON)
        yield running


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Jars that are the ones we know, and a token in the environment; the folder of the jars."""
    folder = tmp_path / "jars"
    folder.mkdir()
    (folder / "a-1.jar").write_bytes(b"a")
    (folder / "b-1.jar").write_bytes(b"b")
    known = [Jar("g", name, "1", hashlib.sha256(name.encode()).hexdigest()) for name in ("a", "b")]
    monkeypatch.setattr(doctor_machine, "JARS", known)
    monkeypatch.setattr(java, "_candidates", lambda: [tmp_path / "java"])
    monkeypatch.setattr(java, "java_version", lambda _home: 17)
    monkeypatch.setattr(doctor_machine, "java_version", lambda _home: 17)
    monkeypatch.setenv("DICOM_ETL_TOKEN", TOKEN)
    return folder


def settings_of(emulator: Emulator, folder: Path, *overrides: str) -> Settings:
    texts = [f"dicom.base_url={emulator.base_url}", "dicom.auth=token", f"lake.root={folder / 'lake'}", *overrides]
    return load_settings(None, texts, {}, folder)


def examined(settings: Settings, jars: Path, **how: Any) -> list[CheckResult]:
    return list(doctor(lambda: settings, **{"clock": lambda: NOON, "jars": jars} | how))


def only(findings: list[CheckResult], check: str) -> CheckResult:
    (found,) = [finding for finding in findings if finding.check == check]
    return found


def states(findings: list[CheckResult], state: str) -> list[str]:
    return [finding.check for finding in findings if finding.state == state]


# -- all of it ---------------------------------------------------------------------------------------------------


def test_where_all_is_well_each_check_says_so_and_nothing_is_left_behind(
    emulator: Emulator, tmp_path: Path, machine: Path
) -> None:
    """One line a check, exit 0; neither a probe file nor the folders of a lake that is not there yet remain."""
    before = sorted(tmp_path.rglob("*"))
    findings = examined(settings_of(emulator, tmp_path, f"lake.private_root={tmp_path / 'own' / 'private'}"), machine)
    assert [finding.check for finding in findings] == ALL_CHECKS
    # Nothing but a lake is missing.
    said = "there is none at lake.root: mount its storage, or correct lake.root, or make a new lake by dicom-etl init"
    assert [one for one in findings if one.state != "ok"] == [CheckResult("lake", "warning", said)]
    assert exit_code(findings) == 0
    assert sorted(tmp_path.rglob("*")) == before
    (page,) = [request for request in emulator.service.requests.all() if request.path == "/v2/changefeed"]
    assert (page.query["limit"], page.query["includeMetadata"]) == ("1", "false")


def test_the_most_basic_problem_decides_the_exit_code() -> None:
    """Configuration before access, before what is unavailable, before storage, before data; warnings do not count."""
    codes = [65, 74, 75, 77, 78]
    findings = [CheckResult("x", "problem", "", code) for code in codes] + [CheckResult("y", "warning", "")]
    assert [exit_code(findings[first:]) for first in range(6)] == [78, 78, 78, 78, 78, 0]
    assert [exit_code(findings[:last]) for last in range(6)] == [0, 65, 74, 75, 77, 78]


def test_wrong_settings_do_not_hide_the_machine(tmp_path: Path, machine: Path) -> None:
    """Each wrong key is a line of its own, and Java, jars and versions are looked at all the same."""

    def load() -> Settings:
        return load_settings(None, ["dicom.auth=password", "lake.rot=x"], {}, tmp_path)

    findings = list(doctor(load, jars=machine))
    unseen = ["address", "connection", "clock", "token", "role", "lake.root", "lake", "metrics", "memory"]
    assert [finding.check for finding in findings] == ["settings", "settings", *unseen, "java", "jars", "versions"]
    assert {finding.text for finding in findings[2:11]} == {"not checked: see settings"}
    assert findings[0].text == "--set: dicom.auth: expected one of none, azure, token"
    assert findings[1].text == "--set: lake.rot: unknown setting; did you mean lake.root?"
    assert exit_code(findings) == 78


def test_settings_that_are_missing_are_named(tmp_path: Path, machine: Path) -> None:
    """The address and the lake; what cannot be looked at then is said, too."""
    findings = examined(load_settings(None, [], {}, tmp_path), machine)
    missing = [finding for finding in findings if finding.check == "settings"]
    assert [finding.text.split(":")[0] for finding in missing] == ["dicom.base_url is not set", "lake.root is not set"]
    assert [finding.exit_code for finding in missing] == [78, 78]
    assert states(findings, "warning") == ["lake.root"]


def test_every_problem_is_found_in_one_go(
    emulator: Emulator, tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused role, a lake of another service, a spoilt jar and no Java: four lines, and the rest is fine."""
    create_ledger(str(tmp_path / "lake" / "run"), new_identity("other.example.org"))
    (machine / "a-1.jar").write_bytes(b"spoilt")
    monkeypatch.setattr(java, "java_version", lambda _home: 11)
    monkeypatch.setenv("DICOM_ETL_TOKEN", "of-nobody")
    findings = examined(settings_of(emulator, tmp_path), machine)
    assert states(findings, "problem") == ["role", "lake", "java", "jars"]
    assert states(findings, "warning") == []
    assert exit_code(findings) == 78


# -- the service -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("of-nobody", r"denies access \(403\); assign the role DICOM Data Reader"),
        ("wrong", r"\(401\).*check dicom.auth"),
    ],
)
def test_a_service_that_refuses_us_names_the_role(
    emulator: Emulator, tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, token: str, said: str
) -> None:
    """401 and 403 are 77, with the role assignment that is missing and without the token."""
    monkeypatch.setenv("DICOM_ETL_TOKEN", token)
    findings = examined(settings_of(emulator, tmp_path), machine)
    assert states(findings, "problem") == ["role"]
    role = only(findings, "role")
    assert role.exit_code == exit_code(findings) == 77
    assert re.search(said, role.text)
    assert "DICOM Data Reader" in role.text
    assert token not in " ".join(finding.text for finding in findings)


def test_without_a_token_the_service_is_said_to_want_one(emulator: Emulator, tmp_path: Path, machine: Path) -> None:
    """dicom.auth = none where a token is asked for: the setting and the role."""
    findings = examined(settings_of(emulator, tmp_path, "dicom.auth=none"), machine)
    assert states(findings, "problem") == ["role"]
    assert only(findings, "role").text.startswith('the service wants a token: set dicom.auth = "azure", and assign')
    assert only(findings, "role").exit_code == 77


def test_a_token_that_is_not_there_is_a_wrong_configuration(
    emulator: Emulator, tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """78; the role cannot be looked at, the connection and the storage can."""
    monkeypatch.delenv("DICOM_ETL_TOKEN")
    findings = examined(settings_of(emulator, tmp_path), machine)
    assert states(findings, "problem") == ["token"]
    assert only(findings, "token").exit_code == 78
    assert only(findings, "role") == CheckResult("role", "warning", "not checked: there is no token")
    assert {"connection", "clock", "lake.root"} <= set(states(findings, "ok"))


def test_a_token_that_cannot_be_one_is_found_where_it_is_looked_at(
    emulator: Emulator, tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """77 of `token` and not of `role`; a whole header was put into the variable here."""
    monkeypatch.setenv("DICOM_ETL_TOKEN", f"Bearer {TOKEN}")
    findings = examined(settings_of(emulator, tmp_path), machine)
    assert states(findings, "problem") == ["token"]
    assert (only(findings, "token").exit_code, TOKEN in only(findings, "token").text) == (77, False)


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"220 mail.example ESMTP\r\n\r\n", "what answers is no web server, or hangs up: check the port"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no answer within 3 s: check the port"),
        (b"", "no answer within 3 s: check the port"),
    ],
)
def test_what_answers_and_is_no_service_is_told_from_a_closed_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, greeting: bytes, said: str
) -> None:
    """75, with the port to look at and not the firewall."""
    monkeypatch.setattr(service, "_TIMEOUT_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        server.settimeout(30)

        def greet() -> None:
            with server.accept()[0] as connection:
                connection.sendall(greeting)
                done.wait(30)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        found = only(findings_at(f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path), "connection")
        done.set()
        thread.join()
    assert (found.state, found.exit_code) == ("problem", 75)
    assert found.text.startswith(said)


def test_a_service_that_is_down_does_not_hide_the_storage(emulator: Emulator, tmp_path: Path, machine: Path) -> None:
    """75, at once; clock and role are said not to be checked, everything else is."""
    with emulator.refusing():
        findings = examined(settings_of(emulator, tmp_path), machine)
    assert states(findings, "problem") == ["connection"]
    assert states(findings, "warning") == ["clock", "role", "lake"]
    assert exit_code(findings) == 75
    assert only(findings, "connection").text.startswith("no connection: check dicom.base_url")


def test_a_wrong_address_of_a_service_that_answers(emulator: Emulator, tmp_path: Path, machine: Path) -> None:
    """404 on the feed is 78."""
    findings = examined(settings_of(emulator, tmp_path, f"dicom.base_url={emulator.base_url}/elsewhere"), machine)
    assert states(findings, "problem") == ["role"]
    assert only(findings, "role").exit_code == 78
    assert "(404)" in only(findings, "role").text


def unknown(_host: str, _port: int) -> object:
    raise socket.gaierror(socket.EAI_NONAME, "secret words of the resolver")


def refused(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("secret words of httpx", request=request)


def findings_at(address: str, tmp_path: Path, **how: Any) -> list[CheckResult]:
    settings = load_settings(None, [f"dicom.base_url={address}"], {}, tmp_path)
    return list(service_findings(settings.dicom, settings.feed.delay, clock=lambda: NOON, **how))


def test_a_name_that_has_no_address(tmp_path: Path) -> None:
    """75, with the name, and in our own words."""
    transport = httpx.MockTransport(refused)
    findings = findings_at("https://ws-name.invalid", tmp_path, resolve=unknown, transport=transport)
    assert [finding.check for finding in findings] == ["address", "connection", "token", "clock", "role"]
    assert findings[0].text.startswith("the name ws-name.invalid has no address here")
    assert findings[0].exit_code == 75
    assert "secret" not in " ".join(finding.text for finding in findings)


def test_a_proxy_knows_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind one, names outside need no address here."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    transport = httpx.MockTransport(refused)
    findings = findings_at("https://ws-name.invalid", tmp_path, resolve=unknown, transport=transport)
    assert findings[0] == CheckResult("address", "ok", "https, ws-name.invalid")


def test_an_address_without_tls_is_a_warning_unless_it_is_this_machine(tmp_path: Path) -> None:
    """http elsewhere can be read on the way."""
    how = {"resolve": lambda *_: None, "transport": httpx.MockTransport(refused)}
    assert findings_at("http://dicom.hospital.example", tmp_path, **how)[0].state == "warning"
    assert findings_at("http://localhost:8080", tmp_path, **how)[0].state == "ok"


@pytest.mark.parametrize("ahead", [1, -1])
@pytest.mark.parametrize(
    ("seconds", "state", "code"),
    [(0, "ok", 0), (60, "ok", 0), (61, "warning", 0), (900, "warning", 0), (901, "problem", 78)],
)
def test_the_clocks_are_compared(
    emulator: Emulator, tmp_path: Path, machine: Path, seconds: int, state: str, code: int, ahead: int
) -> None:
    """By the Date of an answer, in both directions: more than a minute is a warning, more than feed.delay a problem."""
    moment = NOON + ahead * timedelta(seconds=seconds)
    findings = examined(settings_of(emulator, tmp_path), machine, clock=lambda: moment)
    found = only(findings, "clock")
    assert (found.state, found.exit_code, exit_code(findings)) == (state, code, code)
    assert f"{seconds} s {'ahead of' if ahead > 0 and seconds else 'behind'} the service" in found.text


def test_a_service_without_a_date_has_no_clock(tmp_path: Path) -> None:
    """A warning, and no guess."""
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, json=[]))
    findings = findings_at("http://localhost:8080", tmp_path, transport=transport)
    assert only(findings, "clock").text == "not checked: the service's answers have no Date"


# -- TLS, over a real socket -------------------------------------------------------------------------------------


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not like the certificate goes away."""


@contextmanager
def https_server(folder: Path, prepare: Callable[[ssl.SSLContext], None]) -> Iterator[tuple[str, Path]]:
    """The address of a server that answers over TLS, and its own certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2120, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "server.pem", folder / "server.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption_algorithm=plain)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, secret)
    prepare(context)
    server = _Server(("127.0.0.1", 0), _Answer)
    # The handshake belongs to the connection's own thread.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}", pem
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def at_most(version: ssl.TLSVersion) -> Callable[[ssl.SSLContext], None]:
    def prepare(context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 1.1 is deprecated, which is the point
            context.minimum_version = min(version, ssl.TLSVersion.TLSv1_2)
            context.maximum_version = version

    return prepare


@pytest.mark.parametrize(
    ("version", "said"), [(ssl.TLSVersion.TLSv1_2, "by TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "by TLSv1.3")]
)
def test_the_tls_that_was_negotiated_is_told(tmp_path: Path, version: ssl.TLSVersion, said: str) -> None:
    """1.2 and 1.3 are fine."""
    with https_server(tmp_path, at_most(version)) as (address, pem):
        transport = httpx.HTTPTransport(verify=ssl.create_default_context(cafile=pem))
        findings = findings_at(address, tmp_path, transport=transport)
    assert only(findings, "address").text == "https, localhost"
    assert only(findings, "connection") == CheckResult("connection", "ok", f"the service answers, {said}")


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    """75, and what to do about a proxy's own certificates."""
    with https_server(tmp_path, at_most(ssl.TLSVersion.TLSv1_3)) as (address, _):
        findings = findings_at(address, tmp_path)
    assert only(findings, "connection").exit_code == 75
    assert "SSL_CERT_FILE" in only(findings, "connection").text


def test_a_server_that_knows_only_older_tls(tmp_path: Path) -> None:
    """It is not spoken to."""
    with https_server(tmp_path, at_most(ssl.TLSVersion.TLSv1_1)) as (address, _):
        findings = findings_at(address, tmp_path)
    assert only(findings, "connection").exit_code == 75
    assert "TLS 1.2 or newer could not be agreed" in only(findings, "connection").text


def test_older_tls_that_was_negotiated_all_the_same_is_a_problem(tmp_path: Path) -> None:
    """Whatever this machine's TLS library lets through."""

    class Stream:
        def get_extra_info(self, _name: str) -> Any:
            return type("Secure", (), {"version": lambda _self: "TLSv1.1"})()

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, extensions={"network_stream": Stream()})

    findings = findings_at("https://localhost", tmp_path, transport=httpx.MockTransport(answer))
    assert only(findings, "connection").text == "TLSv1.1 is too old: the service must speak TLS 1.2 or newer"
    assert only(findings, "connection").exit_code == 78


def test_a_proxy_that_cannot_be_used_is_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """78, instead of a bug."""
    monkeypatch.setenv("https_proxy", "gopher://proxy:1")
    with pytest.raises(ConfigurationError, match="check the environment's proxies"):
        contact("https://ws-name.invalid", lambda: NOON, None)
    with pytest.raises(ServiceUnavailable, match="no connection"):
        contact("https://ws-name.invalid", lambda: NOON, httpx.MockTransport(refused))


# -- the storage -------------------------------------------------------------------------------------------------


class Failing(LocalFileSystem):
    """A local disk on which one operation fails with an error number."""

    cachable = False

    def __init__(self, operation: str, number: int) -> None:
        super().__init__()
        self._error = OSError(number, os.strerror(number), "/secret/path")
        setattr(self, operation, self._fail)

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise self._error


def test_a_disk_that_is_nearly_full_is_a_warning(
    emulator: Emulator, tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than 1 GiB free below a folder of the lake, one that is not there yet included."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=(1 << 30) - 1))
    findings = examined(settings_of(emulator, tmp_path, f"lake.private_root={tmp_path / 'own'}"), machine)
    assert states(findings, "warning") == ["lake.root", "lake.private_root", "lake"]
    assert only(findings, "lake.root").text.startswith("1.0 GiB are free there: make room")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 30))
    assert states(examined(settings_of(emulator, tmp_path), machine), "warning") == ["lake"]


@pytest.mark.parametrize(
    ("operation", "number", "said"),
    [
        ("open", errno.EACCES, r"this user may not use its folder; .* \(a file cannot be created there\)"),
        ("makedirs", errno.EROFS, r"the storage is read-only; .* \(a file cannot be created there\)"),
        ("pipe_file", errno.ENOSPC, r"the storage is full; .* \(a file cannot be written there\)"),
        ("mv", errno.EPERM, r"this user may not use its folder; .* \(a file cannot be renamed there\)"),
        ("rm_file", errno.EIO, r"the storage failed \(EIO\); .* \(a file cannot be deleted there\)"),
    ],
)
def test_a_disk_that_fails_is_named_with_the_step(
    emulator: Emulator, tmp_path: Path, machine: Path, operation: str, number: int, said: str
) -> None:
    """74, without a path; whatever could be tidied up is, and whose lake it is is looked at all the same."""
    fs = Failing(operation, number)
    findings = examined(
        settings_of(emulator, tmp_path), machine, filesystem_of=lambda place: (fs, place)
    )  # fmt: skip
    assert states(findings, "problem") == ["lake.root"]
    found = only(findings, "lake.root")
    assert found.exit_code == exit_code(findings) == 74
    assert re.fullmatch(said, found.text)
    assert "secret" not in found.text
    left = [path.name for path in (tmp_path / "lake").rglob("*")]
    assert len(left) == (1 if operation == "rm_file" else 0)


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user without rights; root may do everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_without_rights_is_refused() -> None:
    """By the real filesystem, for a real user: 74, and the folder is as it was."""
    folder = Path(tempfile.mkdtemp(prefix="dicom-etl-test-"))
    folder.chmod(0o555)
    try:
        with as_nobody(), pytest.raises(StorageError, match=r"this user may not use its folder.*cannot be created"):
            probe("lake.root", LocalFileSystem(), str(folder), "n")
        with as_nobody(), pytest.raises(StorageError, match=r"this user may not use its folder.*cannot be created"):
            probe("lake.root", LocalFileSystem(), str(folder / "new" / "lake"), "n")
        assert list(folder.iterdir()) == []
        folder.chmod(0o777)
        with as_nobody():
            probe("lake.root", LocalFileSystem(), str(folder), "n")
    finally:
        shutil.rmtree(folder)


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    """78: the setting names the wrong thing."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="is no folder"):
        probe("lake.root", LocalFileSystem(), str(tmp_path / "file" / "lake"), "n")
    assert (tmp_path / "file").read_text() == "x"


class Account(MemoryFileSystem):
    """An object store of its own; ``fails`` maps an operation to what it raises."""

    cachable = False

    def __init__(self, **fails: Exception) -> None:
        super().__init__()
        self.store, self.pseudo_dirs = {}, [""]
        self.asked: list[str] = []
        self._fails = fails

    def _ask(self, operation: str) -> None:
        self.asked.append(operation)
        if operation in self._fails:
            raise self._fails[operation]

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "xb":
            self._ask("create")
        return super().open(path, mode, **options)

    def pipe_file(self, path: str, value: bytes, **options: Any) -> Any:
        self._ask("write")
        return super().pipe_file(path, value, **options)

    def cat_file(self, path: str, **options: Any) -> Any:
        self._ask("read")
        return super().cat_file(path, **options)

    def mv(self, path1: str, path2: str, **options: Any) -> Any:
        self._ask("rename")
        self.cp_file(path1, path2, **options)
        super()._rm(path1)

    def rm_file(self, path: str) -> None:
        self._ask("delete")
        super()._rm(path)


def _wrapped(error: Exception) -> Exception:
    """As adlfs does it."""
    outer = RuntimeError("Failed to upload block: 1.2.840.1")
    outer.__cause__ = error
    return outer


STEPS = {"create": "created", "write": "written", "read": "read", "rename": "renamed", "delete": "deleted"}


def test_everything_a_run_does_is_tried_on_an_account() -> None:
    """Created, refused the second time, written, read, renamed, deleted; nothing is left."""
    account = Account()
    probe("lake.root", account, "container/lake", "n")
    assert account.asked[:6] == ["create", "create", "write", "read", "rename", "delete"]
    assert account.store == {}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "denial",
    [
        HttpResponseError(message="AuthorizationPermissionMismatch 1.2.840.1"),
        _wrapped(HttpResponseError(message="AuthorizationPermissionMismatch 1.2.840.1")),
        PermissionError("1.2.840.1"),
        ClientAuthenticationError(message="1.2.840.1"),
    ],
    ids=lambda denial: type(denial).__name__,
)
def test_an_account_that_refuses_any_step_names_the_role(step: str, denial: Exception) -> None:
    """77 with Storage Blob Data Contributor and the step, and nothing of the storage's own words."""
    account = Account(**{step: denial})
    with pytest.raises(
        AccessDenied, match=f"role Storage Blob Data Contributor on .*cannot be {STEPS[step]}"
    ) as caught:
        probe("lake.root", account, "container/lake", "n")
    assert "1.2.840" not in str(caught.value)
    assert len(account.store) == (1 if step == "delete" else 0)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("text", ["Server failed to authenticate the request.", "KeyBasedAuthenticationNotPermitted"])
def test_an_account_that_does_not_know_us_wants_no_role(step: str, text: str) -> None:
    """77: a wrong key, or a token of another tenant, is not mended by an assignment."""
    account = Account(**{step: HttpResponseError(message=f"{text} 1.2.840.1")})
    with pytest.raises(UnknownIdentity, match=f"check storage.auth .*cannot be {STEPS[step]}") as caught:
        probe("lake.root", account, "container/lake", "n")
    assert not {"role", "1.2.840.1"} & set(str(caught.value).split())


def test_an_account_that_does_not_answer_is_asked_once(emulator: Emulator, tmp_path: Path, machine: Path) -> None:
    """75: each further question would take as long, so nothing is deleted there, and the lake is not looked for."""
    account = Account(create=ServiceRequestError(message="secret words of azure"))
    findings = examined(
        settings_of(emulator, tmp_path), machine, filesystem_of=lambda place: (account, place.lstrip("/"))
    )
    assert account.asked == ["create"]
    assert states(findings, "problem") == ["lake.root"]
    assert only(findings, "lake") == CheckResult("lake", "warning", "not checked: the storage does not answer")
    assert exit_code(findings) == 75
    assert "secret" not in only(findings, "lake.root").text


def test_a_container_that_is_not_there_is_a_wrong_configuration() -> None:
    """78."""
    for missing in (ResourceNotFoundError(message="ContainerNotFound"), FileNotFoundError("x")):
        with pytest.raises(ConfigurationError, match="no such container"):
            probe("lake.root", Account(create=missing), "container/lake", "n")


class Client:
    """An account's client, which says what it is, or refuses to."""

    def __init__(self, told: dict[str, Any] | Exception) -> None:
        self._told = told

    async def get_account_information(self) -> dict[str, Any]:
        if isinstance(self._told, Exception):
            raise self._told
        return self._told


def namespaces(folder: Path, told: Any, root: str, **storage: str) -> list[CheckResult]:
    """What is said right after the root was tried, on an account with such a client."""
    account: Any = Account()
    account.loop, account.service_client = get_loop(), Client(told)
    settings = load_settings(None, [f"lake.root={root}"], {}, folder)
    found = storage_findings(
        settings, lake_paths(settings, Storage(key="eA==", **storage)), lambda _place: (account, "c/x"), "n"
    )
    first = list(islice(found, 2))
    assert (first[0].check, first[0].state) == ("lake.root", "ok")
    return [finding for finding in first if finding.check == "namespace"]


ACCOUNT = "abfss://c@account.dfs.core.windows.net/x"


@pytest.mark.parametrize(
    ("told", "state", "said"),
    [
        ({"is_hns_enabled": True}, "ok", "the account has a hierarchical namespace"),
        ({"is_hns_enabled": False}, "warning", "has no hierarchical namespace, and so no atomic rename"),
        ({"sku_name": "x"}, "warning", "cannot be told: "),
        (HttpResponseError(message="AuthorizationPermissionMismatch 1.2.840.1"), "warning", "cannot be told: "),
    ],
)
def test_an_account_without_a_hierarchical_namespace_is_a_warning(
    tmp_path: Path, told: Any, state: str, said: str
) -> None:
    """Spark commits by a rename; where the account does not tell, that is what is said."""
    (found,) = namespaces(tmp_path, told, ACCOUNT)
    assert (found.state, found.exit_code) == (state, 0)
    assert said in found.text
    assert "1.2.840" not in found.text


def test_a_namespace_is_looked_for_in_azures_own_accounts_only(tmp_path: Path) -> None:
    """OneLake has one, Azurite none, a disk needs none; doctor's other findings come right away."""
    flat = {"is_hns_enabled": False}
    onelake = "abfss://c@onelake.dfs.fabric.microsoft.com/x"
    assert [len(namespaces(tmp_path, flat, root)) for root in (ACCOUNT, onelake, str(tmp_path / "lake"))] == [1, 0, 0]
    assert namespaces(tmp_path, flat, ACCOUNT, endpoint="http://127.0.0.1:10000") == []


class Forgiving(Account):
    """A storage that lets a file be created twice."""

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return super().open(path, "wb" if mode == "xb" else mode, **options)


class Forgetful(Account):
    """A storage that gives back something else."""

    def cat_file(self, path: str, **options: Any) -> Any:
        return super().cat_file(path, **options)[:-1]


@pytest.mark.parametrize(
    ("account", "said"), [(Forgiving(), "could be created twice"), (Forgetful(), "is not what was written")]
)
def test_a_storage_that_does_not_keep_its_word_is_a_problem(account: Account, said: str) -> None:
    """74: on such a storage two runs could write at once, or tables be spoilt."""
    with pytest.raises(StorageError, match=said):
        probe("lake.root", account, "container/lake", "n")
    assert account.store == {}


def test_both_roots_are_tried_each_by_itself(emulator: Emulator, tmp_path: Path, machine: Path) -> None:
    """A private root that is refused leaves the shared one fine; filesystems that cannot be opened are a problem."""

    def filesystem_of(place: str) -> tuple[Any, str]:
        if place.endswith("private"):
            raise ValueError("secret words of adlfs")
        return Account(), place

    settings = settings_of(emulator, tmp_path, f"lake.private_root={tmp_path / 'private'}")
    findings = examined(settings, machine, filesystem_of=filesystem_of)
    assert states(findings, "problem") == ["lake.private_root"]
    assert only(findings, "lake.root").state == "ok"
    found = only(findings, "lake.private_root")
    assert (found.text, found.exit_code) == (
        "the storage cannot be opened (ValueError); check lake.private_root",
        74,
    )


# -- whose lake --------------------------------------------------------------------------------------------------


def test_a_lake_of_this_service_is_known(emulator: Emulator, tmp_path: Path, machine: Path) -> None:
    """With its id and the number of its runs."""
    identity = new_identity("localhost")
    create_ledger(str(tmp_path / "lake" / "run"), identity)
    found = only(examined(settings_of(emulator, tmp_path), machine), "lake")
    assert found == CheckResult("lake", "ok", f"{identity.lake_id} holds localhost; 0 runs stand in its ledger")


def test_a_lake_of_another_service_is_refused(emulator: Emulator, tmp_path: Path, machine: Path) -> None:
    """78, with both names."""
    create_ledger(str(tmp_path / "lake" / "run"), new_identity("other.example.org"))
    found = only(examined(settings_of(emulator, tmp_path), machine), "lake")
    assert (found.state, found.exit_code) == ("problem", 78)
    assert found.text.startswith("this lake holds another service, other.example.org, not localhost")


def test_tables_of_somebody_else_are_named(emulator: Emulator, tmp_path: Path, machine: Path) -> None:
    """65, and how to take them over."""
    write_deltalake(tmp_path / "lake" / "instance", pa.table({"a": [1]}))
    findings = examined(settings_of(emulator, tmp_path), machine)
    assert states(findings, "problem") == ["lake"]
    assert (only(findings, "lake").exit_code, exit_code(findings)) == (65, 65)
    assert "sync --adopt" in only(findings, "lake").text


# -- the machine -------------------------------------------------------------------------------------------------


def test_jars_are_compared_by_their_hash(emulator: Emulator, tmp_path: Path, machine: Path) -> None:
    """One that is another file or missing is 78; none at all is a warning, Spark fetches them."""

    def found() -> CheckResult:
        return only(examined(settings_of(emulator, tmp_path), machine), "jars")

    assert (found().state, found().text) == ("ok", f"2 files at {machine}, with the SHA-256 that we know")
    (machine / "b-1.jar").write_bytes(b"x")
    digest = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
    assert (found().exit_code, found().text) == (
        78,
        f"missing at {machine}, or not the files we know: b-1.jar (SHA-256 {digest}); run dicom-etl setup",
    )
    (machine / "b-1.jar").unlink()
    assert found().exit_code == 78
    (machine / "a-1.jar").unlink()
    assert found().state == "warning"
    assert found().text.startswith(f"not at {machine}: dicom-etl setup puts them there")


def test_without_java_or_spark(
    emulator: Emulator, tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No Java is 78; no pyspark is a warning, since a cluster has its own."""
    monkeypatch.setattr(java, "java_version", lambda _home: 0)
    monkeypatch.setitem(doctor_machine._PACKAGES, "Spark", "no-such-package")
    findings = examined(settings_of(emulator, tmp_path), machine)
    assert only(findings, "java").exit_code == 78
    assert only(findings, "java").text.startswith("no Java 17 or newer found")
    assert only(findings, "versions").state == "warning"
    assert "not installed: Spark;" in only(findings, "versions").text
    assert "dicom-etl " in only(findings, "versions").text


@pytest.mark.parametrize(("driver_memory", "state"), [("2g", "ok"), ("4096M", "ok"), ("5g", "warning")])
def test_a_jvm_larger_than_the_machine_is_a_warning(driver_memory: str, state: str) -> None:
    """Of its memory, not of what is free now: that changes every minute."""
    spark = Spark(master="local[2]", driver_memory=driver_memory, shuffle_partitions=2)
    found = memory_finding(spark, 4 << 30)
    assert (found.check, found.state) == ("memory", state)
    assert found.text.startswith(f"spark.driver_memory is {driver_memory}, this machine has 4.0 GiB")


def test_a_folder_for_metrics_that_is_not_there_is_a_warning(emulator: Emulator, tmp_path: Path, machine: Path) -> None:
    """Since no run fails for it; nothing is said where no metrics are wanted."""
    for file, wanted in (
        (tmp_path / "dicom.prom", ["ok"]),
        (tmp_path / "none" / "dicom.prom", ["warning"]),
        (tmp_path, ["warning"]),
        ("~nobody-at-all/dicom.prom", ["warning"]),
        ("", []),
    ):
        findings = examined(settings_of(emulator, tmp_path, f"metrics.prometheus_file={file}"), machine)
        assert [found.state for found in findings if found.check == "metrics"] == wanted
        assert states(findings, "problem") == []
        if file == tmp_path / "none" / "dicom.prom":
            assert only(findings, "metrics").text == (
                f"metrics.prometheus_file: the folder {tmp_path / 'none'} does not exist; make it, as this user's"
            )
    assert not (tmp_path / "dicom.prom").exists()


@pytest.mark.parametrize(
    ("root", "state", "code"),
    [
        ("{here}", "ok", 0),
        ("{here}/none", "warning", 0),
        ("abfss://dicom@account.dfs.core.windows.net", "ok", 0),
        ("abfss://account.dfs.core.windows.net", "problem", 78),
    ],
)
def test_the_folder_of_the_files_is_looked_at_by_its_name(
    emulator: Emulator, tmp_path: Path, root: str, state: str, code: int
) -> None:
    """Not read: who runs the sync need not have the right to."""
    settings = settings_of(emulator, tmp_path, f"files.root={root.format(here=tmp_path)}", "storage.auth=key")
    findings = storage_findings(settings, lake_paths(settings, Storage()), Storage().filesystem, "n")
    found = only(list(findings), "files.root")
    assert (found.state, found.exit_code) == (state, code)


# -- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_prints_one_line_a_check(emulator: Emulator, tmp_path: Path, as_json: bool) -> None:
    """State, check and words, or JSON; the exit code is that of the problem, and nothing is on standard error."""
    texts = [f"dicom.base_url={emulator.base_url}", "dicom.auth=token", f"lake.root={tmp_path / 'lake'}"]
    typed = [sys.executable, "-m", "dicom_etl", "doctor", *(f"--set={text}" for text in texts)]
    environment = {**os.environ, "DICOM_ETL_TOKEN": "of-nobody"}
    emulator.service.clock.run()
    more = ["--log-format", "json"] if as_json else []
    done = subprocess.run(
        [*typed, *more],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    if as_json:
        rows = [json.loads(line) for line in lines]
        assert {tuple(row) for row in rows} == {("check", "state", "text", "exitCode")}
        found = {row["check"]: (row["state"], row["exitCode"]) for row in rows}
        assert found["role"] == ("problem", 77)
    else:
        found = {line.split()[1]: line.split()[0] for line in lines}
        assert found["role"] == "problem"
    assert {*SERVICE_CHECKS, "settings", "lake.root", "lake", *MACHINE_CHECKS} == set(found)
    assert len(lines) == len(found)
    assert (done.returncode, done.stderr) == (77, "")
    assert "of-nobody" not in done.stdout


def test_each_error_that_a_check_may_meet_has_a_rank() -> None:
    """So that no problem can end with 0."""
    codes = {error.exit_code for error in _all_errors(DicomEtlError)} - {64}
    assert codes >= {65, 70, 74, 75, 77, 78}
    assert [exit_code([CheckResult("x", "problem", "", code)]) for code in sorted(codes)] == sorted(codes)


def _all_errors(kind: type[DicomEtlError]) -> Iterator[type[DicomEtlError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _all_errors(below)
