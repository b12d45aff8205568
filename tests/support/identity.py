"""Where Azure's identities get their tokens, on loopback sockets: a managed identity's endpoint, and Entra's login.

The managed identity speaks the protocols of App Service, Functions and Container Apps (IDENTITY_ENDPOINT) and of
virtual machines (IMDS, to which azure-identity is led by AZURE_POD_IDENTITY_AUTHORITY_HOST). The login speaks the
client-credentials grant, by a secret or by the assertion of a workload identity, over TLS. msal asks
login.microsoftonline.com about a login that it does not know; no variable stops it, but the tenant `adfs`, under which
it asks nobody, so that is the tenant here.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from azure.core.credentials import AccessToken
from azure.storage.blob import BlobServiceClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.azurite import ACCOUNT, KEY, PROGRAM, Azurite

DICOM = "https://dicom.healthcareapis.azure.com"
STORAGE = "https://storage.azure.com"
CLIENT = "7d1fd0a1-52b4-4d4a-9c3f-0e1d0a1b2c3d"
SECRET = "secret-of-the-tests"
HEADER = "header-of-the-tests"
ASSERTION = "assertion.of.the-tests"
TENANT = "adfs"

_VARIABLES = ("AZURE_", "AZURITE_", "IDENTITY_", "IMDS_", "MSI_")


def nobody(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make this a machine without any identity: no variables, no az, no home, and no endpoint at IMDS's address."""
    for name in list(os.environ):
        if name.startswith(_VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(folder))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    # Port 9 of this machine: refused at once. The tests may run on a virtual machine that has an identity.
    monkeypatch.setattr("azure.identity._credentials.imds.IMDS_AUTHORITY", "http://127.0.0.1:9")


@dataclass(frozen=True)
class Asked:
    """One request for a token: by which protocol, for what, and for which client."""

    way: str
    resource: str
    client: str | None = None


@dataclass
class TokenGiver:
    """An endpoint that gives tokens. ``issue`` makes one for a resource, ``seconds`` is how long it says they hold.

    ``script`` is played first: (status, document), one a request for a token. ``silent``: accepts, and never answers.
    ``asked`` are the requests for a token, ``requests`` counts all.
    """

    issue: Callable[[str], str] = lambda _resource: "nobody's"
    seconds: int = 3600
    script: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    silent: threading.Event | None = None
    requests: int = 0
    url: str = ""

    @property
    def app_service(self) -> dict[str, str]:
        """The variables that lead there on App Service, Functions and Container Apps."""
        return {"IDENTITY_ENDPOINT": f"{self.url}/msi/token", "IDENTITY_HEADER": HEADER}

    @property
    def imds(self) -> dict[str, str]:
        """The variable that leads there in place of a virtual machine's IMDS."""
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self.url}

    @property
    def service_principal(self) -> dict[str, str]:
        return {**self._application, "AZURE_CLIENT_SECRET": SECRET}

    def workload(self, folder: Path) -> dict[str, str]:
        """The variables that Kubernetes' webhook sets."""
        (folder / "assertion").write_text(ASSERTION)
        return {**self._application, "AZURE_FEDERATED_TOKEN_FILE": str(folder / "assertion")}

    @property
    def _application(self) -> dict[str, str]:
        return {"AZURE_AUTHORITY_HOST": self.url, "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT}

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        self.requests += 1
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        if method == "GET" and parts.path.endswith("/.well-known/openid-configuration"):
            own = f"{self.url}/{TENANT}"
            return 200, {"issuer": own, "authorization_endpoint": f"{own}/oauth2", "token_endpoint": f"{own}/token"}
        asked = self._managed(parts.path, query, headers) if method == "GET" else self._login(parts.path, body)
        if asked is None:
            return 404, {"error": "not_found"}
        self.asked.append(asked)
        if self.script:
            return self.script.pop(0)
        token = {"access_token": self.issue(asked.resource), "token_type": "Bearer", "resource": asked.resource}
        if asked.way == "app service":
            return 200, {**token, "expires_on": str(int(time.time()) + self.seconds)}
        return 200, {**token, "expires_in": str(self.seconds)}

    def _managed(self, path: str, query: dict[str, str], headers: Mapping[str, str]) -> Asked | None:
        if path == "/msi/token" and query["api-version"] == "2019-08-01" and headers["X-IDENTITY-HEADER"] == HEADER:
            return Asked("app service", query["resource"], query.get("client_id"))
        if path == "/metadata/identity/oauth2/token" and query["api-version"] == "2018-02-01":
            # azure-identity's first probe comes without the header, and is answered 400 on a real machine.
            return Asked("imds", query["resource"], query.get("client_id")) if headers.get("Metadata") else None
        return None

    def _login(self, path: str, body: bytes) -> Asked | None:
        form = dict(parse_qsl(body.decode()))
        scope = form.get("scope", "").split(" ")[0]
        if not path.startswith(f"/{TENANT}/") or not path.endswith("/token") or not scope.endswith("/.default"):
            return None
        way = {SECRET: "secret", ASSERTION: "assertion"}.get(form.get("client_secret") or form["client_assertion"])
        return Asked(way or "stranger", scope.removesuffix("/.default"), form["client_id"])


@contextmanager
def token_giver(certificate: Certificate | None = None) -> Iterator[TokenGiver]:
    """One on a free port until the block ends; with ``certificate`` over TLS, as a login must be."""
    giver = TokenGiver()
    server = _Quiet(("127.0.0.1", 0), _handler(giver))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    giver.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield giver
    finally:
        if giver.silent is not None:
            giver.silent.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that gave up waiting is what some tests are about."""


def _handler(giver: TokenGiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, document = giver.answer(self.command, self.path, self.headers, body)
            if giver.silent is not None:
                giver.silent.wait(60)
                return
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = _serve  # noqa: N815 - http.server's names
        do_POST = _serve  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    return Handler


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 with its key, and the authority of our own that signed it, as PEM files."""

    authority: Path
    certificate: Path
    key: Path


def own_certificate(folder: Path) -> Certificate:
    """New ones, good for a day. Two of them: delta-rs takes no authority for a server."""
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    above = _named("authority of the tests")
    signed = {
        "authority": _certificate(above, above, authority.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        ),
        "certificate": _certificate(_named("127.0.0.1"), above, server.public_key()).add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        ),
    }
    made = Certificate(*(folder / f"{name}.pem" for name in ("authority", "certificate", "key")))
    # From Python 3.13 on certificates are looked at strictly: they name whose key signed them, an authority its use.
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    for name, plain in signed.items():
        builder = plain.add_extension(signer, critical=False)
        content = builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        (folder / f"{name}.pem").write_bytes(content)
    form = serialization.PrivateFormat.PKCS8
    made.key.write_bytes(server.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return made


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=name,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(hours=1),
        not_valid_after=now + timedelta(days=1),
    )
    use = dict.fromkeys(_USES, False) | {"key_cert_sign": name == issuer, "digital_signature": name != issuer}
    return builder.add_extension(x509.KeyUsage(**use), critical=True).add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key), critical=False
    )


_USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def storage_jwt(audience: str = STORAGE, seconds: int = 3600) -> str:
    """A token without a signature, with the claims that Azurite's `--oauth basic` looks at."""
    now = int(time.time())
    claims = {"aud": audience, "iss": f"https://sts.windows.net/{CLIENT}/", "iat": now, "nbf": now - 60}
    parts = ({"alg": "none", "typ": "JWT"}, {**claims, "exp": now + seconds})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return f"{'.'.join(encoded)}.c2lnbmF0dXJl"


@dataclass
class FakeCredential:
    """A credential of a library's user: ``give`` makes the token of a scope, or raises; ``scopes`` were asked for."""

    give: Callable[[str], str]
    seconds: int = 3600
    scopes: list[str] = field(default_factory=list)

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes += scopes
        return AccessToken(self.give(scopes[0]), int(time.time()) + self.seconds)


@dataclass
class SecureAzurite(Azurite):
    """An Azurite over TLS that takes tokens (`--oauth basic`) beside the account's key."""

    certificate: Certificate | None = None

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def client(self) -> BlobServiceClient:
        """By the key: what the tests look with, and nothing of ours."""
        assert self.certificate is not None
        address = f"{self.endpoint}/{ACCOUNT}"
        return BlobServiceClient(address, credential=KEY, connection_verify=str(self.certificate.authority))

    def start(self) -> None:
        assert self.certificate is not None
        options = ["--loose", "--silent", "--disableTelemetry", "--skipApiVersionCheck", "--oauth", "basic"]
        where = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", str(self.folder)]
        secure = ["--cert", str(self.certificate.certificate), "--key", str(self.certificate.key)]
        self.process = subprocess.Popen([str(PROGRAM), *where, *options, *secure], stdout=subprocess.DEVNULL)
        for _ in range(150):
            if self._answers():
                return
            time.sleep(0.2)
        raise RuntimeError("Azurite did not start")

    def _answers(self) -> bool:
        assert self.certificate is not None
        trusted = ssl.create_default_context(cafile=str(self.certificate.authority))
        try:
            with trusted.wrap_socket(
                socket.create_connection(("127.0.0.1", self.port), 2), server_hostname="127.0.0.1"
            ):
                return True
        except OSError:
            return False
