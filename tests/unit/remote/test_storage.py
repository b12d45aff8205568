"""Addresses of Azure's storage, and what adlfs, delta-rs and Hadoop are told of them.

design/spark.md: Azure storage.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import string
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_etl.core.errors import AccessDenied, ConfigurationError
from dicom_etl.core.settings.load import load_settings
from dicom_etl.lake.paths import LakePaths, lake_paths
from dicom_etl.remote import identity
from dicom_etl.remote.identity import AsyncCredential
from dicom_etl.remote.storage import Storage, _own_identity, storage_of
from dicom_etl.remote.uri import is_remote, parse_abfs_uri
from support.identity import FakeCredential, nobody

ROOT = "abfss://dicom@contoso.dfs.core.windows.net/analytics"
OTHER = "abfss://private@elsewhere.dfs.core.windows.net/whole/headers"
ONELAKE = (
    "abfss://cfafbeb1-8037-4d0c-896e-a46fb27ff229@onelake.dfs.fabric.microsoft.com/"
    "25bac802-080d-4f73-8a42-1b406eb1fceb/Tables"
)
AZURITE = "abfs://lake@devstoreaccount1.dfs.core.windows.net/x"
ENDPOINT = "http://127.0.0.1:10000"
KEY = "c2VjcmV0LWtleS1vZi10aGUtdGVzdHM="
TOKEN = "token-of-the-tests"
SCOPE = "https://storage.azure.com/.default"


@pytest.fixture
def credential() -> FakeCredential:
    return FakeCredential(lambda _scope: TOKEN)


# --- addresses


@pytest.mark.parametrize(
    ("text", "scheme", "container", "account", "dfs_host", "blob_host", "path", "key"),
    [
        (ROOT, "abfss", "dicom", "contoso", "contoso.dfs.core.windows.net", "contoso.blob.core.windows.net",
         "analytics", "dicom/analytics"),
        (" abfss://d@a1.dfs.core.windows.net/ ", "abfss", "d", "a1", "a1.dfs.core.windows.net",
         "a1.blob.core.windows.net", "", "d"),
        ("abfss://d@a1.dfs.core.windows.net", "abfss", "d", "a1", "a1.dfs.core.windows.net",
         "a1.blob.core.windows.net", "", "d"),
        (AZURITE, "abfs", "lake", "devstoreaccount1", "devstoreaccount1.dfs.core.windows.net",
         "devstoreaccount1.blob.core.windows.net", "x", "lake/x"),
        (ONELAKE, "abfss", "cfafbeb1-8037-4d0c-896e-a46fb27ff229", "onelake", "onelake.dfs.fabric.microsoft.com",
         "onelake.blob.fabric.microsoft.com", "25bac802-080d-4f73-8a42-1b406eb1fceb/Tables",
         "cfafbeb1-8037-4d0c-896e-a46fb27ff229/25bac802-080d-4f73-8a42-1b406eb1fceb/Tables"),
        ("abfss://w@westus-onelake.dfs.fabric.microsoft.com/l.Lakehouse/Files/a=b/", "abfss", "w", "westus-onelake",
         "westus-onelake.dfs.fabric.microsoft.com", "westus-onelake.blob.fabric.microsoft.com",
         "l.Lakehouse/Files/a=b", "w/l.Lakehouse/Files/a=b"),
    ],
)  # fmt: skip
def test_an_address_says_container_account_and_path(
    text: str, scheme: str, container: str, account: str, dfs_host: str, blob_host: str, path: str, key: str
) -> None:
    found = parse_abfs_uri(text)
    assert (found.scheme, found.container, found.account, found.path) == (scheme, container, account, path)
    assert (found.dfs_host, found.blob_host, found.key) == (dfs_host, blob_host, key)
    assert str(found) == text.strip().rstrip("/")
    assert is_remote(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a folder, or abfss://"),
        ("/data/lake", "expected a folder, or abfss://"),
        ("s3://bucket/x", "expected a folder, or abfss://"),
        ("https://contoso.blob.core.windows.net/dicom", "expected a folder, or abfss://"),
        ("https://contoso.dfs.core.windows.net/dicom", "expected a folder, or abfss://"),
        ("abfss://contoso.dfs.core.windows.net/dicom", "expected a folder, or abfss://"),
        ("abfss://dicom@contoso/x", "expected a folder, or abfss://"),
        ("abfss://dicom@contoso.blob.core.windows.net/x", "expected a folder, or abfss://"),
        ("ABFSS://dicom@contoso.dfs.core.windows.net/x", "expected a folder, or abfss://"),
        ("abfss://dicom@Contoso.dfs.core.windows.net/x", "expected a folder, or abfss://"),
        ("abfss://dicom@contoso.dfs.core.windows.net:443/x", "expected a folder, or abfss://"),
        ("abfss://dicom@user@contoso.dfs.core.windows.net/x", "expected a folder, or abfss://"),
        ("abfss://dicom@contoso.dfs.core.windows.net/x?sv=2024&sig=secret", "expected a folder, or abfss://"),
        ("abfss://dicom@contoso.dfs.core.windows.net/x#y", "expected a folder, or abfss://"),
        ("abfss://dicom@contoso.privatelink.dfs.core.windows.net/x", "expected a folder, or abfss://"),
        ("abfss://My Workspace@onelake.dfs.fabric.microsoft.com/l", "expected a folder, or abfss://"),
        ("abfss://dicom@contoso.dfs.core.usgovcloudapi.net/x", "expected an account of dfs.core.windows.net"),
        ("abfss://dicom@contoso.dfs.core.chinacloudapi.cn/x", "expected an account of dfs.core.windows.net"),
        ("abfss://dicom@contoso.dfs.example.com/x", "expected an account of dfs.core.windows.net"),
        ("abfss://dicom@contoso.dfs.core.windows.net.example.com/x", "expected an account of dfs.core.windows.net"),
        ("abfss://dicom@contoso.dfs.core.windows.net//x//y", "without empty parts"),
        ("abfss://dicom@contoso.dfs.core.windows.net/x/../y", "without empty parts"),
        ("abfss://dicom@contoso.dfs.core.windows.net/./x", "without empty parts"),
        ("abfss://dicom@contoso.dfs.core.windows.net/..", "without empty parts"),
    ],
)
def test_what_is_no_address_is_refused_without_being_shown(text: str, said: str) -> None:
    """A token goes to no other host than one of Azure Storage or OneLake."""
    with pytest.raises(ValueError, match=r"^expected") as caught:
        parse_abfs_uri(text)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_delta_rs_opens_no_address_of_another_cloud(tmp_path: Path) -> None:
    """Why they are refused: it does not know the host, and says so before it asks anybody."""
    del tmp_path
    with pytest.raises(OSError, match="did not match any known pattern"):
        DeltaTable(
            "abfss://dicom@contoso.dfs.core.usgovcloudapi.net/x",
            storage_options={"account_name": "contoso", "bearer_token": TOKEN},
        )


_NAMES = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=12).filter(lambda n: n[0] != "-")
_PARTS = st.text(string.ascii_letters + string.digits + "_-.=", min_size=1, max_size=8).filter(
    lambda part: part not in (".", "..")
)


@settings(deadline=None)
@given(_NAMES, _NAMES, st.lists(_PARTS, max_size=4), st.sampled_from(["", "/"]))
def test_an_address_is_the_same_when_read_again(container: str, account: str, parts: list[str], end: str) -> None:
    """Whatever its parts; the host is the account's."""
    text = "/".join([f"abfss://{container}@{account}.dfs.core.windows.net", *parts]) + end
    found = parse_abfs_uri(text)
    assert parse_abfs_uri(str(found)) == found
    assert found.key.split("/") == [container, *parts]
    assert found.dfs_host == f"{account}.dfs.core.windows.net"


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    """An address of a known host, or ValueError."""
    try:
        found = parse_abfs_uri(f"abfss://{text}")
    except ValueError:
        return
    assert found.suffix in ("core.windows.net", "fabric.microsoft.com")
    assert found.container


@pytest.mark.parametrize(
    ("place", "remote"),
    [("/data", False), ("data", False), ("file:///data", False), (ROOT, True), ("s3://b", True)],
)
def test_a_folder_of_this_machine_is_told_from_an_address(place: str, remote: bool) -> None:
    assert is_remote(place) is remote


# --- local folders


def test_a_local_folder_needs_no_identity(tmp_path: Path) -> None:
    """Its filesystem is fsspec's, delta-rs and Hadoop are told nothing."""
    storage = Storage()
    filesystem, path = storage.filesystem(str(tmp_path))
    assert (type(filesystem), path) == (LocalFileSystem, str(tmp_path))
    assert storage.delta(str(tmp_path)) is None
    assert storage.hadoop((str(tmp_path), str(tmp_path))) == {}


# --- what each library is told


def adlfs_given(storage: Storage, place: str) -> dict[str, Any]:
    """What adlfs is told of the identity."""
    return storage._adlfs_identity(parse_abfs_uri(place))


def test_an_accounts_key_is_given_to_all_three() -> None:
    """To the account's own hosts."""
    storage = Storage(key=KEY)
    assert adlfs_given(storage, ROOT) == {
        "account_name": "contoso",
        "account_host": "contoso.blob.core.windows.net",
        "account_key": KEY,
    }
    told = storage.delta(f"{ROOT}/instance") or {}
    assert {name: told.get(name) for name in ("account_name", "account_key", "bearer_token", "allow_http")} == {
        "account_name": "contoso",
        "account_key": KEY,
        "bearer_token": None,
        "allow_http": None,
    }
    assert told["azure_storage_endpoint"] == "https://contoso.blob.core.windows.net"
    hadoop = storage.hadoop((ROOT,))
    assert hadoop["fs.azure.account.auth.type.contoso.dfs.core.windows.net"] == "SharedKey"
    assert hadoop["fs.azure.account.key.contoso.dfs.core.windows.net"] == KEY
    assert "fs.azure.abfs.endpoint" not in hadoop


def test_an_identity_is_given_to_all_three_and_no_key(credential: FakeCredential) -> None:
    """adlfs has the credential, delta-rs a token of now, Hadoop an address to ask."""
    storage = Storage(credential=credential)
    assert adlfs_given(storage, ROOT) == {
        "account_name": "contoso",
        "account_host": "contoso.blob.core.windows.net",
        "credential": AsyncCredential(credential),
    }
    assert credential.scopes == []
    told = storage.delta(f"{ROOT}/instance") or {}
    assert (told["bearer_token"], told["account_name"], "account_key" in told) == (TOKEN, "contoso", False)
    assert credential.scopes == [SCOPE]
    hadoop = storage.hadoop((ROOT,), "http://127.0.0.1:1/secret/token")
    host = "contoso.dfs.core.windows.net"
    assert hadoop[f"fs.azure.account.auth.type.{host}"] == "OAuth"
    assert hadoop[f"fs.azure.account.oauth.provider.type.{host}"].endswith(".MsiTokenProvider")
    assert hadoop[f"fs.azure.account.oauth2.msi.endpoint.{host}"] == "http://127.0.0.1:1/secret/token"
    assert not [name for name in hadoop if "account.key" in name]
    assert TOKEN not in hadoop.values()


def test_azurite_is_reached_by_its_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its account in the path for adlfs, as the emulator for delta-rs, over http for Hadoop."""
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", "http://elsewhere")
    storage = Storage(key=KEY, endpoint=ENDPOINT)
    assert adlfs_given(storage, AZURITE) == {
        "connection_string": "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
        f"AccountKey={KEY};BlobEndpoint={ENDPOINT}/devstoreaccount1"
    }
    told = storage.delta(AZURITE) or {}
    assert (told["azure_storage_use_emulator"], told["allow_http"], told["account_key"]) == ("true", "true", KEY)
    assert os.environ["AZURITE_BLOB_STORAGE_URL"] == ENDPOINT
    hadoop = storage.hadoop((AZURITE,))
    assert hadoop["fs.azure.abfs.endpoint"] == "127.0.0.1:10000"
    assert hadoop["fs.azure.always.use.https"] == "false"
    assert hadoop["fs.azure.account.key.devstoreaccount1.dfs.core.windows.net"] == KEY


def test_azurite_with_an_identity_is_reached_over_tls(
    credential: FakeCredential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes tokens over https only."""
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", "http://elsewhere")
    storage = Storage(credential=credential, endpoint="https://127.0.0.1:10000")
    assert adlfs_given(storage, AZURITE)["account_host"] == "127.0.0.1:10000/devstoreaccount1"
    told = storage.delta(AZURITE) or {}
    assert (told["azure_storage_use_emulator"], told["bearer_token"], "account_key" in told) == ("true", TOKEN, False)
    assert storage.hadoop((AZURITE,), "http://127.0.0.1:1/t")["fs.azure.always.use.https"] == "true"


def test_onelake_is_reached_by_its_own_hosts(credential: FakeCredential) -> None:
    """The workspace is the container, and the host is Fabric's; the scope is that of any storage."""
    storage = Storage(credential=credential)
    filesystem, path = storage.filesystem(ONELAKE)
    assert path == ONELAKE.replace("abfss://", "").replace("@onelake.dfs.fabric.microsoft.com", "")
    assert filesystem.service_client.url == "https://onelake.blob.fabric.microsoft.com/"
    told = storage.delta(ONELAKE) or {}
    assert told["azure_storage_endpoint"] == "https://onelake.blob.fabric.microsoft.com"
    assert credential.scopes == [SCOPE]
    hadoop = storage.hadoop((ONELAKE,), "http://127.0.0.1:1/t")
    assert hadoop["fs.azure.account.auth.type.onelake.dfs.fabric.microsoft.com"] == "OAuth"


def test_roots_in_two_accounts_are_both_let_in(credential: FakeCredential, tmp_path: Path) -> None:
    """`lake.private_root` may lie in another container, or another account, or on this machine."""
    hadoop = Storage(credential=credential).hadoop((ROOT, OTHER, str(tmp_path)), "http://127.0.0.1:1/t")
    told = {name.split(".auth.type.")[1] for name in hadoop if ".auth.type." in name}
    assert told == {"contoso.dfs.core.windows.net", "elsewhere.dfs.core.windows.net"}
    where = lake_paths(
        load_settings(None, [f"lake.root={ROOT}", f"lake.private_root={OTHER}"], {}, tmp_path), Storage()
    )
    assert (where.instance, where.change) == (f"{ROOT}/instance", f"{OTHER}/change")


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("my%20lake", "take the % and the two digits after it out of the folder's name"),
        ("file://{here}/a%2541", "take the % and the two digits after it out of the folder's name"),
        ("a" * 256, r"no folder can have this name \(ENAMETOOLONG\)"),
        ("my`lake", "take backticks and backslashes out of the folder's name"),
        ("my\\\\lake", "take backticks and backslashes out of the folder's name"),
    ],
)
def test_a_folder_that_no_lake_can_have_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, said: str
) -> None:
    """Also where the setting itself looks well: below a working folder with such a name."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings(None, [f"lake.root={root.format(here=tmp_path)}"], {}, tmp_path)
    with pytest.raises(ConfigurationError, match=f"^lake.root: {said}"):
        lake_paths(settings)
    (tmp_path / "b%41").mkdir()
    monkeypatch.chdir(tmp_path / "b%41")
    with pytest.raises(ConfigurationError, match=r"^lake.root: take the %"):
        lake_paths(load_settings(None, ["lake.root=./lake"], {}, tmp_path))


@pytest.mark.parametrize("root", ["//{here}/lake", "{here}//lake/", "file://{here}/lake"])
def test_one_folder_has_one_text(tmp_path: Path, root: str) -> None:
    """Hadoop takes what follows two slashes for a host."""
    wanted = load_settings(None, [f"lake.root={root.format(here=tmp_path)}"], {}, tmp_path)
    assert lake_paths(wanted).root == f"{tmp_path}/lake"


OVERLAPPING = {
    "change below run": ["lake.private_root={here}/lake/run"],
    "change below instance": ["lake.private_root={here}/lake/instance"],
    "change among the claims": ["lake.private_root={here}/lake/_claims"],
    "the lake below its own change": ["lake.root={here}/p/change/lake", "lake.private_root={here}/p"],
    "change below instance, by ..": ["lake.private_root={here}/x/../lake/instance"],
    "change below series, by a link": ["lake.private_root={here}/link/series"],
    "two shared tables in one": ["lake.study_path=series/study"],
    "a shared table in another's place": ["lake.study_path=instance"],
    "a shared table in run's place": ["lake.series_path=run"],
    "a shared table below change": ["lake.series_path=change/series"],
    "Azure": [
        "lake.root=abfss://c@a.dfs.core.windows.net/x/",
        "lake.private_root=abfs://c@a.dfs.core.windows.net/x/run",
    ],
    "OneLake, in other letters": [
        "lake.root=abfss://0A@onelake.dfs.fabric.microsoft.com/0B/Tables",
        "lake.private_root=abfss://0a@onelake.dfs.fabric.microsoft.com/0b/Tables/study",
    ],
}


def placed(folder: Path, texts: list[str]) -> LakePaths:
    first = f"lake.root={folder}/lake"
    return lake_paths(
        load_settings(None, [first, *(text.format(here=folder) for text in texts)], {}, folder), Storage()
    )


@pytest.mark.parametrize("texts", OVERLAPPING.values(), ids=OVERLAPPING.keys())
def test_a_table_in_the_folder_of_another_is_refused(tmp_path: Path, texts: list[str]) -> None:
    """`maintain` would delete the inner one's files, which the outer one does not know."""
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    with pytest.raises(
        ConfigurationError, match=r"^lake\.\w+: the folders of \w+ and \w+ are the same, or one lies in"
    ):
        placed(tmp_path, texts)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_texts_that_differ_may_be_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: a comparison of texts lets a link, `..` and other letters pass."""
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    monkeypatch.setattr("dicom_etl.lake.paths._real", str)
    passed = []
    for case, texts in OVERLAPPING.items():
        with suppress(ConfigurationError):
            placed(tmp_path, texts)
            passed.append(case)
    assert passed == [
        "change below instance, by ..",
        "change below series, by a link",
        "Azure",
        "OneLake, in other letters",
    ]


APART = {
    "all in one root": [],
    "private tables in the root": ["lake.private_root={here}/lake"],
    "private tables beside the others": ["lake.private_root={here}/lake/private"],
    "the private root above the root": ["lake.private_root={here}"],
    "a name that begins alike": ["lake.instance_path=run2", "lake.series_path=runs/series"],
    "the name of a table that lies elsewhere": ["lake.series_path=change", "lake.private_root={here}/private"],
    "another container": ["lake.root=abfss://c@a.dfs.core.windows.net/x", "lake.private_root=abfss://d@a.dfs.core.windows.net/x"],
}  # fmt: skip


@pytest.mark.parametrize("texts", APART.values(), ids=APART.keys())
def test_tables_beside_each_other_are_taken(tmp_path: Path, texts: list[str]) -> None:
    assert placed(tmp_path, texts).change.endswith("/change")


@pytest.mark.parametrize("how", [{"key": KEY}, {"credential": FakeCredential(lambda _scope: TOKEN)}])
def test_nobody_tries_for_ever(how: dict[str, Any]) -> None:
    """Hadoop's own bounds are half an hour, delta-rs's three minutes a request."""
    storage = Storage(**how)
    hadoop = storage.hadoop((ROOT,), "http://127.0.0.1:1/t")
    assert int(hadoop["fs.azure.io.retry.max.retries"]) <= 5
    assert int(hadoop["fs.azure.oauth.token.fetch.retry.max.retries"]) <= 3
    told = storage.delta(ROOT) or {}
    assert {"max_retries", "retry_timeout", "timeout", "connect_timeout"} <= set(told)


def test_an_identity_that_gives_no_token_is_said_before_delta_rs_is_asked() -> None:
    """77, with what to do."""

    def fails(_scope: str) -> str:
        raise ClientAuthenticationError("secret-of-a-tenant")

    with pytest.raises(AccessDenied, match="no Azure identity gave a token for the storage: sign in") as caught:
        Storage(credential=FakeCredential(fails)).delta(ROOT)
    assert "secret" not in str(caught.value)


def test_the_credential_can_be_awaited(credential: FakeCredential) -> None:
    """As adlfs does, in a thread beside its loop; closing the filesystem does not close the credential."""
    asked: list[str] = []
    credential.give = lambda _scope: asked.append(threading.current_thread().name) or TOKEN  # type: ignore[func-returns-value]

    async def twice() -> list[str]:
        async with AsyncCredential(credential) as awaited:
            first = await awaited.get_token(SCOPE)
        return [first.token, (await awaited.get_token(SCOPE)).token]

    assert asyncio.run(twice()) == [TOKEN, TOKEN]
    assert credential.scopes == [SCOPE] * 2
    assert threading.current_thread().name not in asked


# --- nothing decides but the settings

_VARIABLES = {
    "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountName=stranger;AccountKey=c3Q=;"
    "EndpointSuffix=core.windows.net",
    "AZURE_STORAGE_ACCOUNT_NAME": "stranger",
    "AZURE_STORAGE_ACCOUNT_KEY": "c3RyYW5nZXI=",
    "AZURE_STORAGE_SAS_TOKEN": "sig=stranger",
    "AZURE_STORAGE_CLIENT_ID": "stranger",
    "AZURE_STORAGE_CLIENT_SECRET": "stranger",
    "AZURE_STORAGE_TENANT_ID": "stranger",
    "AZURE_STORAGE_ANON": "true",
}


@pytest.mark.parametrize("place", [ROOT, OTHER])
@pytest.mark.parametrize("way", ["credential", "key", "endpoint"])
def test_variables_of_adlfs_do_not_lead_to_another_account(
    credential: FakeCredential, monkeypatch: pytest.MonkeyPatch, way: str, place: str
) -> None:
    """Many apps have AZURE_STORAGE_CONNECTION_STRING; by it the claims would lie where the tables are not."""
    for name, value in _VARIABLES.items():
        monkeypatch.setenv(name, value)
    storage = {
        "credential": Storage(credential=credential),
        "key": Storage(key=KEY),
        "endpoint": Storage(key=KEY, endpoint=ENDPOINT),
    }[way]
    filesystem, _ = storage.filesystem(f"{place}/of/its/own")
    account = parse_abfs_uri(place).account
    url = f"{ENDPOINT}/{account}" if way == "endpoint" else f"https://{account}.blob.core.windows.net"
    assert filesystem.service_client.url.rstrip("/") == url
    assert filesystem.account_key == (KEY if way == "key" else None)
    assert filesystem.credential == (AsyncCredential(credential) if way == "credential" else None)
    assert (filesystem.sas_token, filesystem.client_secret) == (None, None)
    assert bool(filesystem.connection_string) is (way == "endpoint")


def test_adlfs_itself_would_be_led_away(credential: FakeCredential, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: why our filesystem is not adlfs's own."""
    from adlfs import AzureBlobFileSystem

    for name, value in _VARIABLES.items():
        monkeypatch.setenv(name, value)
    options = adlfs_given(Storage(credential=credential), ROOT)
    led_away = AzureBlobFileSystem(**options, skip_instance_cache=True)
    assert led_away.service_client.url == "https://stranger.blob.core.windows.net/"
    assert issubclass(_own_identity(), AzureBlobFileSystem)


@contextmanager
def _listener() -> Iterator[tuple[str, list[str]]]:
    """An address, and the Authorization headers of the requests that come there."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers.get("Authorization", ""))
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", heard
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("said", [True, False])
def test_variables_of_delta_rs_do_not_lead_the_token_away(
    credential: FakeCredential, monkeypatch: pytest.MonkeyPatch, said: bool
) -> None:
    """By our options they are overruled. The broken twin (False), with less said: the token goes where they say."""
    storage = Storage(credential=credential)
    impatient = {"max_retries": "0", "retry_timeout": "1s", "allow_http": "true"}
    options = {**(storage.delta(ROOT) or {}), **impatient}
    if not said:
        options = {name: value for name, value in options.items() if not name.startswith("azure_")}
    # Nobody is asked over https: its proxy refuses.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with _listener() as (endpoint, heard):
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", endpoint)
        with pytest.raises((OSError, DeltaError)):
            DeltaTable(ROOT, storage_options=options)
    assert heard[:1] == ([] if said else [f"Bearer {TOKEN}"])


def test_filesystems_of_two_identities_are_two(credential: FakeCredential) -> None:
    """fsspec keeps filesystems by what they were given."""
    first, _ = Storage(credential=credential).filesystem(ROOT)
    again, _ = Storage(credential=credential).filesystem(ROOT)
    other, _ = Storage(credential=FakeCredential(lambda _scope: "another")).filesystem(ROOT)
    assert first is again
    assert first is not other


# --- secrets


@pytest.mark.parametrize("endpoint", ["", ENDPOINT])
def test_the_key_is_in_no_repr(endpoint: str, tmp_path: Path) -> None:
    """Nor in that of what holds the storage: a debugger or an assertion would show it."""
    storage = Storage(key=KEY, endpoint=endpoint)
    where = lake_paths(load_settings(None, [f"lake.root={ROOT}"], {}, tmp_path), storage)
    assert dataclasses.asdict(storage)["key"] == KEY
    for shown in (repr(storage), str(storage), f"{where!r}", repr(parse_abfs_uri(ROOT))):
        assert KEY not in shown
    assert "endpoint=" in repr(storage)


# --- settings


def settings_of(tmp_path: Path, *texts: str) -> Any:
    return load_settings(None, [f"lake.root={ROOT}", *texts], {}, tmp_path)


def test_the_settings_choose_the_identity(tmp_path: Path, credential: FakeCredential) -> None:
    """None for folders; azure-identity by default; the key of a variable, stripped; nothing is asked for a token."""
    asked: list[int] = []

    def make() -> FakeCredential:
        asked.append(1)
        return credential

    local = load_settings(None, [f"lake.root={tmp_path}", "storage.auth=key"], {}, tmp_path)
    assert storage_of(local, {}, make) == Storage()
    assert asked == []
    assert storage_of(settings_of(tmp_path), {}, make) == Storage(credential=credential)
    assert (asked, credential.scopes) == ([1], [])
    by_key = settings_of(tmp_path, "storage.auth=key", "storage.key_env=THE_KEY", f"storage.endpoint={ENDPOINT}/")
    assert storage_of(by_key, {"THE_KEY": f" {KEY}\n"}, make) == Storage(key=KEY, endpoint=ENDPOINT)
    with pytest.raises(ConfigurationError, match=r"^the variable that storage\.key_env names holds no account key$"):
        storage_of(by_key, {"THE_KEY": "not base64!"}, make)
    only_files = load_settings(None, [f"lake.root={tmp_path}", f"files.root={ROOT}"], {}, tmp_path)
    assert storage_of(only_files, {}, make) == Storage(credential=credential)


def test_the_default_identity_is_azure_identitys_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Made, and asked for nothing, also where there is none."""
    from azure.identity import DefaultAzureCredential

    nobody(monkeypatch, tmp_path)
    made = storage_of(settings_of(tmp_path)).credential
    assert isinstance(made, identity.BusyAwareCredential)
    assert isinstance(made._source, DefaultAzureCredential)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["storage.auth=key"], "storage.auth is key, but the variable that storage.key_env names is not set"),
        (
            ["storage.endpoint=http://127.0.0.1:10000"],
            "--set: storage.endpoint: expected https://, a token is sent to this address",
        ),
        *(
            (
                ["storage.auth=key", f"storage.endpoint={endpoint}"],
                "--set: storage.endpoint: expected an address such as http://127.0.0.1:10000, without the account's "
                "name",
            )
            for endpoint in (
                "127.0.0.1:10000",
                "http://127.0.0.1:10000/devstoreaccount1",
                "ftp://127.0.0.1",
                "https://user:secret@127.0.0.1",
                "https://127.0.0.1?sig=secret",
                "http://",
            )
        ),
        *(
            (
                [f"{key}=abfss://dicom@contoso.dfs.core.windows.net/{path}"],
                f"--set: {key}: expected letters, digits, _ - . = + , only in the path",
            )
            for key in ("lake.root", "lake.private_root")
            for path in ("my lake", "ä", "50%", "a~b", "a*b", "a[b]")
        ),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(tmp_path: Path, texts: list[str], said: str) -> None:
    """78, without the value; no identity is made."""

    def unwanted() -> FakeCredential:
        raise AssertionError

    with pytest.raises(ConfigurationError) as caught:
        storage_of(settings_of(tmp_path, *texts), {}, unwanted)
    assert str(caught.value) == said


def test_all_problems_of_the_storage_come_at_once(tmp_path: Path) -> None:
    """One line each."""
    texts = [f"lake.root={ROOT} x", f"lake.private_root={ROOT}/ä", "storage.endpoint=nowhere"]
    with pytest.raises(ConfigurationError) as caught:
        storage_of(settings_of(tmp_path, *texts), {}, lambda: FakeCredential(lambda _scope: TOKEN))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["lake.root", "lake.private_root", "storage.endpoint"]


@pytest.mark.parametrize("path", ["my lake", "ä", "a~b", "a[b]"])
def test_such_a_path_is_another_one_to_delta_rs(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Why they are refused: delta-rs encodes them twice, adlfs and Hadoop once, and so they name two folders."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        options = {"account_name": "a", "bearer_token": TOKEN, "allow_http": "true", "max_retries": "0"}
        options["azure_storage_endpoint"] = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises((OSError, DeltaError)):
            DeltaTable(f"abfss://c@a.dfs.core.windows.net/{path}", storage_options=options)
        server.shutdown()
    assert len(asked) > 0
    assert "%25" in asked[0]


@pytest.mark.parametrize("path", ["analytics", "a/b-c_d.e", "k=v/x", "A1+2,3"])
def test_usual_paths_are_taken(tmp_path: Path, credential: FakeCredential, path: str) -> None:
    chosen = load_settings(None, [f"lake.root=abfss://d@a.dfs.core.windows.net/{path}"], {}, tmp_path)
    assert storage_of(chosen, {}, lambda: credential).credential is credential


def test_adlfs_gives_up_within_half_a_minute() -> None:
    """The client waits for 15 s before the first of three tries; every request of ours has another policy."""
    storage = Storage(key="a2V5")
    filesystem, _ = storage.filesystem("abfss://lake@account.dfs.core.windows.net/a")
    policy = filesystem.service_client._config.retry_policy
    assert (policy.total_retries, policy.initial_backoff, policy.increment_base) == (4, 1, 2)
    container = filesystem.service_client.get_container_client("lake")
    assert policy in container._pipeline._impl_policies
