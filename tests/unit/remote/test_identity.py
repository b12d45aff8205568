"""Azure's identities against local endpoints, and a DICOM service that looks at each token.

design/service-protocol.md: Tokens and roles.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError

from dicom_emulator.http.tokens import NOBODY, OWNER, READER
from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import serve_in_thread
from dicom_emulator.state.service import DicomService
from dicom_etl.core.errors import AccessDenied, ConfigurationError, DicomEtlError, ServiceUnavailable
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.dicomweb.connect import connect
from dicom_etl.remote import identity
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.identity import (
    DICOM_SCOPE,
    TokenSource,
    access_token,
    azure_credential,
    azure_tokens,
    dicom_tokens,
)
from dicom_etl.tables.engine import jvm
from support.identity import (
    ASSERTION,
    CLIENT,
    DICOM,
    HEADER,
    SECRET,
    Asked,
    Certificate,
    FakeCredential,
    TokenGiver,
    nobody,
    own_certificate,
    token_giver,
)

FEED = HttpRequest("/v2/changefeed", expect_json=True)
WAYS = {"app service": "app service", "imds": "imds", "service principal": "secret", "workload identity": "assertion"}


@dataclass
class World:
    """A DICOM service that takes only tokens that the giver issued, of one role; ``issued`` are those, in order."""

    service: DicomService
    base_url: str
    giver: TokenGiver
    issued: list[str]
    monkeypatch: pytest.MonkeyPatch
    folder: Path
    role: str = READER

    def issue(self, resource: str) -> str:
        self.issued.append(self.service.tokens.issue(self.role))
        assert resource == DICOM
        return self.issued[-1]

    def be(self, way: str) -> None:
        """Give this machine the identity."""
        variables = {
            "app service": self.giver.app_service,
            "imds": self.giver.imds,
            "service principal": self.giver.service_principal,
            "workload identity": self.giver.workload(self.folder),
        }[way]
        for name, value in variables.items():
            self.monkeypatch.setenv(name, value)

    @property
    def settings(self) -> Settings:
        return load_settings(None, [f"dicom.base_url={self.base_url}", "dicom.auth=azure"], {}, self.folder)

    def client(self, tokens: TokenSource | None = None) -> HttpClient:
        dicom = self.settings.dicom
        return connect(dicom, tokens or dicom_tokens(dicom), sleep=lambda _seconds: None)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Requests that reached the service, those of them that it answered 401, and tokens that were fetched."""
        return self.service.requests.count(), self.service.tokens.refused, len(self.giver.asked)


def read(client: HttpClient) -> bytes:
    """What one request for the feed brings."""
    return client.send(FEED, lambda answer: answer.body)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return own_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def make_world(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Certificate
) -> Iterator[Callable[..., World]]:
    from contextlib import ExitStack

    nobody(monkeypatch, tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.authority))
    with ExitStack() as stack:

        def make(way: str | None = None) -> World:
            emulator = stack.enter_context(serve_in_thread(EmulatorOptions(tokens={})))
            login = way in ("service principal", "workload identity")
            giver = stack.enter_context(token_giver(certificate if login else None))
            world = World(emulator.service, emulator.base_url, giver, [], monkeypatch, tmp_path)
            giver.issue = world.issue
            if way is not None:
                world.be(way)
            return world

        yield make


# --- each way


@pytest.mark.parametrize("way", WAYS)
def test_each_way_brings_one_token_for_the_dicom_service_and_it_is_sent(
    make_world: Callable[..., World], way: str
) -> None:
    """By variables alone; asked for with the service's scope, and kept for later requests."""
    world = make_world(way)
    with world.client() as client:
        assert [read(client) for _ in range(20)] == [b"[]"] * 20
    client_id = CLIENT if WAYS[way] in ("secret", "assertion") else None
    assert world.giver.asked == [Asked(WAYS[way], DICOM, client_id)]
    assert world.counts == (20, 0, 1)


def test_a_service_that_asks_for_tokens_takes_no_others(make_world: Callable[..., World]) -> None:
    """The broken twin of the tests above: a token of another giver is refused."""
    world = make_world("imds")
    world.giver.issue = lambda _resource: "of-another-giver"
    with world.client() as client, pytest.raises(AccessDenied, match="does not accept the token"):
        read(client)


@pytest.mark.parametrize("way", ["app service", "imds"])
def test_a_user_assigned_identity_is_named_by_its_variable(make_world: Callable[..., World], way: str) -> None:
    """AZURE_CLIENT_ID says which of a machine's identities."""
    world = make_world(way)
    world.monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    with world.client() as client:
        read(client)
    assert world.giver.asked == [Asked(way, DICOM, CLIENT)]


def test_the_service_principal_comes_before_the_machines_identity(make_world: Callable[..., World]) -> None:
    """As azure-identity documents its order; the machine's is not even asked."""
    world = make_world("service principal")
    with token_giver() as machine:
        for name, value in machine.app_service.items():
            world.monkeypatch.setenv(name, value)
        with world.client() as client:
            read(client)
    assert (machine.asked, len(world.giver.asked)) == ([], 1)


# --- renewal


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("seconds", "fetched"), [(200, 2), (3600, 1)])
def test_a_token_near_its_end_is_renewed_before_it_is_refused(
    make_world: Callable[..., World], way: str, seconds: int, fetched: int
) -> None:
    """Within its last five minutes the next request brings a new one; one that holds longer is kept."""
    world = make_world(way)
    world.giver.seconds = seconds
    with world.client() as client:
        read(client)
        if WAYS[way] in ("secret", "assertion"):
            _let_pass_the_pause_between_fetches(world.monkeypatch)
        read(client)
    assert world.counts == (2, 0, fetched)
    assert len(set(world.issued)) == fetched


def _let_pass_the_pause_between_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    """azure-identity asks a login no more than twice a minute for a token that holds still."""
    monkeypatch.setattr("azure.identity._internal.utils.DEFAULT_TOKEN_REFRESH_RETRY_DELAY", 0)


@pytest.mark.parametrize("way", WAYS)
def test_a_revoked_token_is_renewed_once_and_the_run_goes_on(make_world: Callable[..., World], way: str) -> None:
    """azure-identity keeps a token until its end; after a 401 the next one must come from its source."""
    world = make_world(way)
    with world.client() as client:
        read(client)
        world.service.tokens.revoke()
        assert read(client) == b"[]"
        assert read(client) == b"[]"
    assert world.counts == (4, 1, 2)


def test_a_source_that_ignores_the_wish_to_renew_is_caught(make_world: Callable[..., World]) -> None:
    """The broken twin, as it was: the same token is sent twice, and the run ends."""
    world = make_world("imds")
    kept = azure_tokens(DICOM_SCOPE, "the DICOM service")
    with world.client(lambda _renew: kept(False)) as client:
        read(client)
        world.service.tokens.revoke()
        with pytest.raises(AccessDenied):
            read(client)
    assert world.counts == (3, 2, 1)


def test_a_token_that_is_refused_again_is_not_tried_a_third_time(make_world: Callable[..., World]) -> None:
    """One new token, one new request, and then 77 in one line."""
    world = make_world("app service")
    world.giver.issue = lambda _resource: f"refused-{len(world.giver.asked)}"
    with world.client() as client, pytest.raises(AccessDenied) as caught:
        read(client)
    assert world.counts == (2, 2, 2)
    assert caught.value.exit_code == 77
    assert str(caught.value).endswith("the token in the variable of dicom.token_env")


def test_threads_that_are_refused_together_renew_once(make_world: Callable[..., World]) -> None:
    """Eight requests, eight times 401, one new token."""
    world = make_world("imds")
    together = threading.Barrier(8)
    tokens = azure_tokens(DICOM_SCOPE, "the DICOM service")
    first: set[int] = set()

    def meeting(renew: bool) -> str:
        token = tokens(renew)
        if threading.get_ident() not in first:
            first.add(threading.get_ident())
            together.wait(30)
        return token

    with world.client(tokens) as client:
        read(client)
    world.service.tokens.revoke()
    with world.client(meeting) as client, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _number: read(client), range(8))) == [b"[]"] * 8
    assert world.counts == (1 + 8 + 8, 8, 2)


def test_a_role_that_is_missing_is_said_and_no_token_renewed(make_world: Callable[..., World]) -> None:
    """403 is no matter of the token."""
    world = make_world("imds")
    world.role = NOBODY
    with world.client() as client, pytest.raises(AccessDenied, match="role DICOM Data Reader"):
        read(client)
    assert world.counts == (1, 0, 1)


def test_a_reader_may_read_and_not_store(make_world: Callable[..., World]) -> None:
    """What upload needs more is said by name."""
    world = make_world("imds")
    nothing = {"Content-Type": "multipart/related; boundary=b"}
    store = HttpRequest("/v2/studies", method="POST", content=b"", headers=nothing, expected=frozenset({204}))
    with world.client() as client:
        assert read(client) == b"[]"
        with pytest.raises(AccessDenied, match=r"role DICOM Data Owner to this identity$"):
            client.send(store, lambda answer: answer.body)
    world.role = OWNER
    with world.client() as client:
        assert client.send(store, lambda answer: answer.status) == 204


# --- no identity, or one that cannot be asked


def test_without_any_identity_the_run_ends_at_once_and_says_what_to_do(make_world: Callable[..., World]) -> None:
    """77; nothing is sent to the service. IMDS is probed once, and not as patiently as where it is known to be."""
    world = make_world()
    probes: list[str] = []
    from azure.identity._internal import managed_identity_client

    asked = managed_identity_client.ManagedIdentityClient.request_token
    world.monkeypatch.setattr(
        managed_identity_client.ManagedIdentityClient,
        "request_token",
        lambda self, *scopes, **how: probes.append(str(how)) or asked(self, *scopes, **how),
    )
    with world.client() as client, pytest.raises(AccessDenied) as caught:
        read(client)
    assert probes == ["{'connection_timeout': 1, 'retry_total': 0}"]
    assert str(caught.value) == (
        "no Azure identity gave a token for the DICOM service: sign in (az login), or give this machine a managed "
        "identity or a service principal"
    )
    assert world.counts == (0, 0, 0)


def test_a_machine_whose_imds_has_no_identity_for_us_is_as_none(make_world: Callable[..., World]) -> None:
    """IMDS answers 400: asked once, then 77."""
    world = make_world("imds")
    world.giver.script = [(400, {"error": "invalid_request", "error_description": "Identity not found"})]
    with world.client() as client, pytest.raises(AccessDenied, match="give this machine a managed identity"):
        read(client)
    assert world.counts == (0, 0, 1)


def test_a_wrong_secret_is_said_by_entras_number_only(make_world: Callable[..., World]) -> None:
    """77; the rest of Entra's text names tenant and application."""
    world = make_world("service principal")
    text = "AADSTS7000215: Invalid client secret provided for app 'tests' in tenant 'hospital'."
    world.giver.script = [(401, {"error": "invalid_client", "error_description": text})]
    with world.client() as client, pytest.raises(AccessDenied) as caught:
        read(client)
    assert "for the DICOM service (AADSTS7000215): sign in" in str(caught.value)
    assert "hospital" not in str(caught.value)
    assert world.counts == (0, 0, 1)


@pytest.mark.parametrize("way", WAYS)
def test_a_source_of_tokens_that_cannot_be_reached_is_worth_another_run(
    make_world: Callable[..., World], way: str
) -> None:
    """75, where there is an identity and only the network is wrong. A silent IMDS looks like none at all: 77."""
    world = make_world(way)
    for name, value in os.environ.items():
        if world.giver.url in value:
            world.monkeypatch.setenv(name, value.replace(world.giver.url, "https://127.0.0.1:9"))
    world.monkeypatch.setattr("azure.core.pipeline.transport.RequestsTransport.sleep", lambda *_: None)
    with world.client() as client, pytest.raises(DicomEtlError) as caught:
        read(client)
    assert type(caught.value) is (AccessDenied if way == "imds" else ServiceUnavailable)
    assert world.counts == (0, 0, 0)


@pytest.mark.parametrize("way", WAYS)
def test_a_source_of_tokens_that_never_answers_does_not_hold_the_run(
    make_world: Callable[..., World], way: str
) -> None:
    """Two tries, each as long as we say; azure-identity's own are four of five minutes."""
    world = make_world(way)
    assert identity._BOUNDS == {"connection_timeout": 10, "read_timeout": 20, "retry_connect": 1, "retry_read": 1}
    world.monkeypatch.setattr(identity, "_BOUNDS", {**identity._BOUNDS, "read_timeout": 0.2})
    world.monkeypatch.setattr("azure.core.pipeline.transport.RequestsTransport.sleep", lambda *_: None)
    world.giver.silent = threading.Event()
    with world.client() as client, pytest.raises(DicomEtlError) as caught:
        read(client)
    assert type(caught.value) is (AccessDenied if way == "imds" else ServiceUnavailable)
    assert (world.giver.requests, world.service.requests.count()) == (2, 0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [429, 503])
def test_a_source_of_tokens_that_is_busy_is_worth_another_run(
    make_world: Callable[..., World], way: str, status: int
) -> None:
    """75 and not 77, which would end a `watch`; also the next minute, in which MSAL answers without asking."""
    world = make_world(way)
    world.monkeypatch.setattr("azure.core.pipeline.transport.RequestsTransport.sleep", lambda *_: None)
    world.giver.script = [(status, {"error": "too_busy", "error_description": "not now"})] * 20
    with world.client() as client:
        for _ in range(2):
            with pytest.raises(ServiceUnavailable, match="could not be fetched; run again later"):
                read(client)
    assert len(world.giver.asked) >= 1
    assert {asked.way for asked in world.giver.asked} == {WAYS[way]}


TOKEN_URL = "https://login.microsoftonline.com/tenant/oauth2/v2.0/token"
DISCOVERY_URL = "https://login.microsoftonline.com/common/discovery/instance?api-version=1.1"
IMDS_URL = "http://169.254.169.254/metadata/identity/oauth2/token"


@pytest.mark.parametrize(
    ("answers", "after_seconds", "busy"),
    [
        ([(TOKEN_URL, 429)], 0, True),
        # Of Entra's own address MSAL asks for its other names after a refusal; the tests' authority has none.
        ([(DISCOVERY_URL, 200), (TOKEN_URL, 429), (DISCOVERY_URL, 200)], 0, True),
        ([(TOKEN_URL, 429)], 61, True),
        ([(TOKEN_URL, 429)], 120, False),
        ([(TOKEN_URL, 429), (TOKEN_URL, 401)], 0, False),
        ([(IMDS_URL, 429)], 0, True),
        ([(IMDS_URL, 500)], 0, True),
        # A proxy's word for an address that it cannot reach: there is no identity.
        ([(IMDS_URL, 502)], 0, False),
        ([(IMDS_URL, 504)], 0, False),
        ([], 0, False),
    ],
)
def test_a_busy_login_is_told_by_the_answer_that_decided(
    answers: list[tuple[str, int]], after_seconds: float, busy: bool
) -> None:
    now = [100.0]

    class Refused:
        def __init__(self, hook: Callable[[Any], None]) -> None:
            for url, status in answers:
                request, response = SimpleNamespace(url=url), SimpleNamespace(status_code=status)
                hook(SimpleNamespace(http_request=request, http_response=response))
            now[0] += after_seconds

        def get_token(self, *_scopes: str, **_options: object) -> AccessToken:
            raise ClientAuthenticationError("refused")

    credential = identity.BusyAwareCredential(Refused, lambda: now[0])
    with pytest.raises(ServiceUnavailable if busy else AccessDenied):
        identity.access_token(credential, "scope", "the DICOM service")


@pytest.mark.parametrize("way", ["service principal", "workload identity"])
def test_a_login_whose_certificate_is_not_trusted_is_a_matter_of_configuration(
    make_world: Callable[..., World], way: str
) -> None:
    """78, with the variable that azure-identity reads (it is not SSL_CERT_FILE); a hospital's proxy signs anew."""
    world = make_world(way)
    world.monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    world.monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    world.monkeypatch.setattr("azure.core.pipeline.transport.RequestsTransport.sleep", lambda *_: None)
    with world.client() as client, pytest.raises(ConfigurationError, match="name that in REQUESTS_CA_BUNDLE") as caught:
        read(client)
    assert "127.0.0.1" not in str(caught.value)
    assert world.counts == (0, 0, 0)


@pytest.mark.parametrize("way", ["app service", "imds"])
def test_an_identity_that_worked_and_gives_nothing_now_is_worth_another_run(
    make_world: Callable[..., World], way: str
) -> None:
    """75: a `watch` that ended with 77 at each hiccup of the endpoint would stay ended."""
    world = make_world(way)
    world.giver.seconds = 200
    with world.client() as client:
        read(client)
        world.giver.script = [(400, {"error": "invalid_request", "error_description": "not now"})]
        with pytest.raises(ServiceUnavailable, match="could not be fetched; run again later"):
            read(client)
        assert read(client) == b"[]"
    assert world.counts == (2, 0, 3)


@pytest.mark.parametrize(
    "variables",
    [
        {"AZURE_TENANT_ID": "not a tenant", "AZURE_CLIENT_ID": CLIENT, "AZURE_CLIENT_SECRET": SECRET},
        {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": CLIENT, "AZURE_CLIENT_CERTIFICATE_PATH": "/nonexistent/c.pem"},
        {"AZURE_AUTHORITY_HOST": "http://login.example.com"},
        {"AZURE_TOKEN_CREDENTIALS": "everything"},
    ],
    ids=lambda variables: next(reversed(variables)),
)
def test_variables_that_cannot_be_an_identity_are_a_matter_of_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str]
) -> None:
    """78 in one line that shows no value."""
    nobody(monkeypatch, tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        azure_credential()
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert "AZURE_ variables cannot be an identity" in said
    assert not [value for value in variables.values() if len(value) > 1 and value in said]


# --- what the errors of a credential become


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ClientAuthenticationError("HTTPSConnection(host='h', port=1): Failed to establish"), ServiceUnavailable),
        (ClientAuthenticationError("HTTPConnectionPool(host='h', port=1): Read timed out."), ServiceUnavailable),
        (ClientAuthenticationError("no response from the IMDS endpoint"), AccessDenied),
        (ClientAuthenticationError("AADSTS700016: secret-of-a-tenant"), AccessDenied),
        (ServiceRequestError("secret-of-a-tenant: CERTIFICATE_VERIFY_FAILED"), ConfigurationError),
        (ServiceRequestError("secret-of-a-tenant"), ServiceUnavailable),
        (FileNotFoundError("secret-of-a-tenant"), ServiceUnavailable),
        (ValueError("secret-of-a-tenant"), ServiceUnavailable),
    ],
)
def test_a_credentials_error_becomes_ours_without_its_text(error: Exception, expected: type[DicomEtlError]) -> None:
    def fails(_scope: str) -> str:
        raise error

    credential = FakeCredential(fails)
    with pytest.raises(DicomEtlError) as caught:
        access_token(credential, DICOM_SCOPE, "the DICOM service")
    assert credential.scopes == [DICOM_SCOPE]
    assert type(caught.value) is expected
    assert "secret" not in str(caught.value)


# --- secrets


def test_no_token_and_no_secret_is_logged(
    make_world: Callable[..., World], logged: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by us nor by azure-identity, msal, urllib3 and httpx, were they listened to; a refusal included."""
    heard = []
    for name in ("azure", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name)
    for way in WAYS:
        world = make_world(way)
        with caplog.at_level(logging.DEBUG), world.client() as client:
            logging.getLogger().addHandler(caplog.handler)
            read(client)
            world.service.tokens.revoke()
            read(client)
        assert len(world.issued) == 2
        heard += world.issued
        for name in list(os.environ):
            if name.startswith(("AZURE_", "IDENTITY_")):
                world.monkeypatch.delenv(name)
    assert "DefaultAzureCredential" in caplog.text
    assert {"httpx", "httpcore.connection"} <= {record.name for record in caplog.records}
    said = caplog.text + logged()
    assert [secret for secret in (*heard, SECRET, HEADER, ASSERTION) if secret in said] == []


def test_the_jvm_finds_no_token_in_its_environment(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in this process's memory only; the variable that `dicom.auth = "token"` reads is left out."""
    world = make_world("imds")
    monkeypatch.setenv("DICOM_ETL_TOKEN", "token-by-variable")
    with world.client() as client:
        read(client)
        assert len(world.issued) == 1
        environment = jvm.child_environment(os.environ, world.folder, world.folder / "gateway")
    assert os.environ["DICOM_ETL_TOKEN"] == "token-by-variable"
    assert "AZURE_POD_IDENTITY_AUTHORITY_HOST" in environment
    assert not {world.issued[0], "token-by-variable"} & set(environment.values())


# --- the command


def typed(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    """`dicom-etl …` in a process of its own, with the identity that this one has."""
    settings = [f"dicom.base_url={world.base_url}", "dicom.auth=azure", f"lake.root={world.folder / 'lake'}"]
    command = [sys.executable, "-m", "dicom_etl", *words, *(f"--set={text}" for text in settings)]
    environment = os.environ | {"DICOM_ETL_CONFIG": "/dev/null"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


def test_the_command_says_in_one_line_that_its_token_is_refused(make_world: Callable[..., World]) -> None:
    """77 after two requests; with a token that is taken it ends well."""
    world = make_world("app service")
    good = typed(world, "sync", "--init", "--dry-run")
    assert (good.returncode, good.stderr) == (0, "")
    before = world.counts
    world.giver.issue = lambda _resource: f"refused-{len(world.giver.asked)}"
    done = typed(world, "sync", "--init", "--dry-run")
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("dicom-etl: 127.0.0.1:")
    assert "does not accept the token (401)" in done.stderr
    assert tuple(now - then for now, then in zip(world.counts, before, strict=True)) == (2, 2, 2)


def test_the_command_says_in_one_line_that_there_is_no_identity(make_world: Callable[..., World]) -> None:
    """77, and one request to IMDS, which knows none."""
    world = make_world("imds")
    world.giver.script = [(400, {"error": "invalid_request", "error_description": "Identity not found"})]
    done = typed(world, "sync", "--init", "--dry-run")
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr.count("\n") == 1
    assert "sign in (az login)" in done.stderr
    assert world.counts == (0, 0, 1)


# --- the guide


def test_the_guide_shows_what_is_said_and_every_variable(make_world: Callable[..., World]) -> None:
    """docs/azure.md: the lines for want of an identity, and the variables by which one is found."""
    guide = (Path(__file__).parents[3] / "docs" / "azure.md").read_text(encoding="utf-8")
    world = make_world("imds")
    world.giver.script = [(400, {"error": "invalid_request"})]
    with world.client() as client, pytest.raises(AccessDenied) as denied:
        read(client)
    world.monkeypatch.setenv("AZURE_AUTHORITY_HOST", "http://login.example.com")
    with pytest.raises(ConfigurationError) as wrong:
        azure_credential()
    assert [str(error.value) for error in (denied, wrong) if f"`{error.value}`" not in guide] == []
    names = {*world.giver.app_service, *world.giver.service_principal, *world.giver.workload(world.folder)}
    assert len(names) == 7
    assert [name for name in names if f"`{name}`" not in guide] == []
    assert f"`{DICOM_SCOPE}`" in guide
