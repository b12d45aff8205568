"""A lake in storage that takes tokens and no key: Azurite with `--oauth basic` over TLS, read and written by all three.

Its certificate comes from an authority of our own; processes of their own trust that, Python and delta-rs by
SSL_CERT_FILE, the JVM by a trust store.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_emulator.http.tokens import NOBODY, READER
from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import Emulator, serve_in_thread
from support import azurite
from support.azurite import ACCOUNT, KEY
from support.identity import (
    DICOM,
    STORAGE,
    Certificate,
    SecureAzurite,
    TokenGiver,
    nobody,
    own_certificate,
    storage_jwt,
    token_giver,
)
from support.site import SECOND, at, metadata, text_at

pytestmark = pytest.mark.azure
GUIDE = Path(__file__).parents[2] / "docs" / "azure.md"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return own_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[SecureAzurite]:
    if why := azurite.missing():
        pytest.skip(why)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = SecureAzurite(tmp_path_factory.mktemp("secure-azurite"), port, certificate=certificate)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def container(secure: SecureAzurite) -> Iterator[str]:
    """The name of a new one, made with the account's key."""
    name = f"lake-{os.urandom(6).hex()}"
    with secure.client as client, client.create_container(name):
        yield name


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A service with three instances that asks for tokens."""
    with serve_in_thread(EmulatorOptions(tokens={})) as running:
        running.service.clock.freeze(at(8), step=SECOND)
        for number in range(3):
            running.service.create(("Microsoft.Default", "1.2", "1.2.3", f"1.2.3.{number}"), metadata(modality="CT"))
        yield running


@pytest.fixture
def giver(emulator: Emulator) -> Iterator[TokenGiver]:
    """The identity of an app: it gives tokens for the service, as a reader, and for the storage."""
    with token_giver() as giver:
        makers: dict[str, Callable[[], str]] = {
            DICOM: lambda: emulator.service.tokens.issue(READER),
            STORAGE: storage_jwt,
        }
        giver.issue = lambda resource: makers[resource]()
        yield giver


@pytest.fixture
def environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Certificate, giver: TokenGiver
) -> dict[str, str]:
    """Of a process that has this identity, no key, and trusts the certificate, the JVM not included."""
    path = os.environ["PATH"]
    home = os.environ.get("HOME", "")
    nobody(monkeypatch, tmp_path)
    without = {name: value for name, value in os.environ.items() if not name.startswith("DICOM_ETL")}
    return without | giver.app_service | {"SSL_CERT_FILE": str(certificate.authority), "PATH": path, "HOME": home}


def trusting_java(environment: dict[str, str], certificate: Certificate, folder: Path) -> dict[str, str]:
    """The same with a trust store for the JVM, by the variable that each JVM reads."""
    from dicom_etl.tables.engine.java import java_home

    keytool = java_home() / "bin" / "keytool"
    store = folder / "trust.p12"
    words = ["-importcert", "-noprompt", "-alias", "azurite", "-file", str(certificate.authority)]
    where = ["-keystore", str(store), "-storetype", "PKCS12", "-storepass", "changeit"]
    program = str(keytool) if keytool.exists() else shutil.which("keytool")
    if program is None:
        pytest.skip("this Java has no keytool")
    subprocess.run([program, *words, *where], check=True, capture_output=True)
    options = f"-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword=changeit"
    return environment | {"JAVA_TOOL_OPTIONS": options}


def python(code: str, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """A program with the storage that the settings in its arguments name."""
    start = (
        "import sys\nfrom dicom_etl.core.settings.load import load_settings\n"
        "from dicom_etl.remote.storage import storage_of\n"
        "settings = load_settings(None, sys.argv[1:], {})\nstorage = storage_of(settings)\nroot = settings.lake.root\n"
    )
    # As our programs end (exits.py): at Python's own end deltalake's threads may abort it, its work done.
    end = "\nimport os\nsys.stdout.flush()\nos._exit(0)\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", start + code + end, *words],
        capture_output=True, text=True, check=False, env=environment, timeout=120,
    )  # fmt: skip


def texts(secure: SecureAzurite, container: str) -> list[str]:
    """Where the lake lies; `storage.auth` is "azure" by default."""
    return [f"lake.root={azurite.address(container, 'lake')}", f"storage.endpoint={secure.endpoint}"]


ADLFS = """
filesystem, path = storage.filesystem(root)
with filesystem.open(f"{path}/_claims/1", "xb") as file:
    file.write(b"mine")
try:
    filesystem.open(f"{path}/_claims/1", "xb").close()
except FileExistsError:
    print("once")
print(filesystem.cat_file(f"{path}/_claims/1"), [name.rpartition("/")[2] for name in filesystem.ls(f"{path}/_claims")])
"""


def test_adlfs_makes_and_reads_files_by_a_token(
    secure: SecureAzurite, container: str, environment: dict[str, str], giver: TokenGiver
) -> None:
    """A claim is made once, read and listed; one token was fetched, and no key is anywhere."""
    done = python(ADLFS, environment, *texts(secure, container))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["once", "b'mine' ['1']"]
    assert [(asked.way, asked.resource) for asked in giver.asked] == [("app service", STORAGE)]
    with secure.client as client, client.get_container_client(container) as there:
        assert list(there.list_blob_names()) == ["lake/_claims/1"]


DELTA_RS = """
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
for number in range(3):
    options = storage.delta(f"{root}/table")
    write_deltalake(f"{root}/table", pa.table({"number": [number]}), mode="append", storage_options=options)
table = DeltaTable(f"{root}/table", storage_options=storage.delta(f"{root}/table"))
print(table.version(), sorted(table.to_pyarrow_table()["number"].to_pylist()))
"""


def test_delta_rs_writes_and_reads_a_table_by_a_token(
    secure: SecureAzurite, container: str, environment: dict[str, str], giver: TokenGiver
) -> None:
    """Three commits, read back; the certificate is trusted by SSL_CERT_FILE alone."""
    done = python(DELTA_RS, environment, *texts(secure, container))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[0] == "2 [0, 1, 2]"
    assert [(asked.way, asked.resource) for asked in giver.asked] == [("app service", STORAGE)]


@pytest.mark.parametrize(("code", "error"), [(ADLFS, "ClientAuthenticationError"), (DELTA_RS, "OSError")])
def test_a_token_for_another_audience_is_refused(
    secure: SecureAzurite, container: str, environment: dict[str, str], giver: TokenGiver, code: str, error: str
) -> None:
    """The broken twin: a token of the DICOM service opens no storage, and there is no key to fall back on."""
    giver.issue = lambda _resource: storage_jwt(audience=DICOM)
    done = python(code, environment, *texts(secure, container))
    assert done.returncode == 1
    assert len(giver.asked) >= 1
    assert error in done.stderr
    with secure.client as client, client.get_container_client(container) as there:
        assert list(there.list_blob_names()) == []


def dicom_etl(environment: dict[str, str], verb: str, *settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dicom_etl", verb, *(f"--set={text}" for text in settings)]
    environment = environment | {"DICOM_ETL_CONFIG": "/dev/null"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=280)


@pytest.fixture
def doctor(
    secure: SecureAzurite, container: str, environment: dict[str, str], emulator: Emulator
) -> Callable[..., tuple[int, dict[str, tuple[str, str]]]]:
    """Its exit code, and by check the state and what it says; the service is called HOST."""

    def run(*settings: str) -> tuple[int, dict[str, tuple[str, str]]]:
        emulator.service.clock.freeze(datetime.now(UTC))
        service = [f"dicom.base_url={emulator.base_url}", "dicom.auth=azure"]
        done = dicom_etl(environment, "doctor", *texts(secure, container), *service, *settings)
        lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
        host = emulator.base_url.removeprefix("http://")
        return done.returncode, {check: (state, text.replace(host, "HOST")) for state, check, text in lines}

    return run


CHECKS = {"token", "role", "lake.root", "lake"}


def test_doctor_finds_one_identity_good_for_service_and_storage(
    doctor: Callable[..., tuple[int, dict[str, tuple[str, str]]]], giver: TokenGiver
) -> None:
    """Both roles by what they allow; nothing else is asked for."""
    code, said = doctor()
    assert set(said) >= CHECKS
    assert {check: said[check][0] for check in CHECKS} == {
        "token": "ok", "role": "ok", "lake.root": "ok", "lake": "warning",  # init has not made it
    }  # fmt: skip
    assert said["token"][1] == "there is one, from azure-identity"
    assert code == 0
    assert {asked.resource for asked in giver.asked} == {DICOM, STORAGE}


def test_doctor_says_what_an_identity_lacks_in_the_words_of_the_guide(
    doctor: Callable[..., tuple[int, dict[str, tuple[str, str]]]], giver: TokenGiver, emulator: Emulator
) -> None:
    """77, and each line stands in docs/azure.md: a role at the service, a token of this tenant at the storage.

    Azurite knows no roles; what is said of a missing one there is `tests/unit/lake/test_deltalog.py`'s.
    """
    tokens = {DICOM: lambda: emulator.service.tokens.issue(NOBODY), STORAGE: lambda: storage_jwt(audience=DICOM)}
    giver.issue = lambda resource: tokens[resource]()
    code, said = doctor()
    assert {check: said[check][0] for check in CHECKS} == {
        "token": "ok",
        "role": "problem",
        "lake.root": "problem",
        "lake": "problem",
    }
    assert code == 77
    guide = GUIDE.read_text(encoding="utf-8")
    assert "DICOM Data Reader" in said["role"][1]
    assert "does not accept our key or token" in said["lake.root"][1]
    assert [check for check in ("role", "lake.root", "lake") if f"`{said[check][1]}`" not in guide] == []


def test_doctor_says_that_a_container_is_missing_in_the_words_of_the_guide(
    doctor: Callable[..., tuple[int, dict[str, tuple[str, str]]]],
) -> None:
    """78."""
    code, said = doctor(f"lake.private_root={azurite.address('no-such-container', 'x')}")
    assert code == 78
    assert (said["lake.root"][0], said["lake.private_root"][0]) == ("ok", "problem")
    assert f"`{said['lake.private_root'][1]}`" in GUIDE.read_text(encoding="utf-8")


def test_a_sync_by_one_identity_writes_and_reads_the_lake_with_all_three(
    secure: SecureAzurite, container: str, environment: dict[str, str], giver: TokenGiver, emulator: Emulator,
    certificate: Certificate, tmp_path: Path,
) -> None:  # fmt: skip
    """A reader's role and tokens for the storage are all it has: claims by adlfs, landing by delta-rs, MERGE by Spark.

    Spark's tokens come by the loopback address; what it wrote, delta-rs reads.
    """
    service = [f"dicom.base_url={emulator.base_url}", "dicom.auth=azure", f"feed.start={text_at(0)}"]
    settings = [*texts(secure, container), *service, "feed.window=1d", "spark.driver_memory=1g"]
    emulator.service.clock.freeze(at(30), step=SECOND)
    trusting = trusting_java(environment, certificate, tmp_path)
    for verb in ("init", "sync"):
        done = dicom_etl(trusting, verb, *settings)
        assert done.returncode == 0, done.stderr
    assert KEY not in "\0".join(environment.values())
    told = python(
        """
from deltalake import DeltaTable
for name in ("instance", "series", "study", "change", "run"):
    table = DeltaTable(f"{root}/{name}", storage_options=storage.delta(f"{root}/{name}"))
    print(name, table.to_pyarrow_table().num_rows, table.history(1)[0].get("engineInfo", "delta-rs").split("/")[0])
""",
        environment,
        *texts(secure, container),
    )  # fmt: skip
    assert told.stderr == ""
    assert [line.split()[:2] for line in told.stdout.splitlines()] == [
        ["instance", "3"],
        ["series", "1"],
        ["study", "1"],
        ["change", "3"],
        ["run", "1"],
    ]
    assert "Apache-Spark" in told.stdout.splitlines()[0]
    assert {asked.resource for asked in giver.asked} == {DICOM, STORAGE}
    assert ACCOUNT in secure.client.url
    assert emulator.service.tokens.refused == 0
    assert storage_jwt()[:20] not in done.stdout + done.stderr
