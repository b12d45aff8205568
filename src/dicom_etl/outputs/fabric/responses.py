"""What Fabric's answers about shortcuts mean: the shortcuts they list, and the errors that their statuses are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

import msgspec

from dicom_etl.core.errors import AccessDenied, ConfigurationError, ProtocolError
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import HttpResponse, raise_if_retryable

_CODE = re.compile(r"[A-Za-z0-9]{1,64}")
_ROLE = "assign this identity the role Contributor in the workspace"


class NameTaken(Exception):
    """Something has the name already, so nothing was made; ``status_text`` is the status with Fabric's code."""

    def __init__(self, status_text: str) -> None:
        super().__init__(status_text)
        self.status_text = status_text


@dataclass(frozen=True, slots=True)
class Target:
    """A folder in Azure storage: the account's DFS endpoint, /container/path, and the id of Fabric's connection."""

    location: str
    subpath: str
    connection: str


@dataclass(frozen=True, slots=True)
class Shortcut:
    """One shortcut; ``target`` is None where it points at something else than Azure storage."""

    path: str
    name: str
    target: Target | None

    @property
    def place(self) -> str:
        return f"{self.path}/{self.name}"


class _AdlsGen2(msgspec.Struct, rename="camel"):
    location: str | None = None
    subpath: str | None = None
    connection_id: str | None = None


class _Target(msgspec.Struct, rename="camel"):
    adls_gen2: _AdlsGen2 | None = None


class _Listed(msgspec.Struct):
    path: str
    name: str
    target: _Target | None = None


class _Page(msgspec.Struct, rename="camel"):
    value: list[_Listed]
    continuation_token: str | None = None


class _Error(msgspec.Struct, rename="camel"):
    error_code: str = ""


def page(response: HttpResponse) -> tuple[list[Shortcut], str | None]:
    """The shortcuts of one page of the list, and the token of the next page as Fabric wrote it."""
    try:
        decoded = msgspec.json.decode(response.body, type=_Page)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError("Fabric's list of shortcuts is not what its API describes") from error
    return [_shortcut(listed) for listed in decoded.value], decoded.continuation_token


def _shortcut(listed: _Listed) -> Shortcut:
    adls = listed.target.adls_gen2 if listed.target is not None else None
    target = None if adls is None else as_target(adls.location or "", adls.subpath or "", adls.connection_id or "")
    return Shortcut(listed.path.strip("/"), listed.name, target)


def as_target(location: str, subpath: str, connection: str) -> Target:
    """The one spelling of a target, so that equal ones are equal: slashes and case as Fabric may change them."""
    return Target(location.rstrip("/").lower(), "/" + subpath.strip("/"), connection.lower())


def raise_for_status(request: HttpRequest, response: HttpResponse, _host: str) -> NoReturn:
    """Raises the error that an unexpected status means: RetryableError where another attempt may help."""
    status, text = response.status, _status_text(response)
    raise_if_retryable(response, text)
    if status == 401:
        raise AccessDenied(
            f"Fabric does not accept the token ({text}); sign in (az login) or renew the token in the variable of "
            f"fabric.token_env, let the tenant allow service principals to use Fabric's APIs, and {_ROLE}"
        )
    if 300 <= status < 400:
        raise ConfigurationError(f"fabric.api_url: redirects ({text}) and redirects are not followed")
    posts = request.method == "POST"
    if status == 403:
        connection = " and the right to use the connection" if posts else ""
        raise AccessDenied(f"Fabric denies access ({text}); {_ROLE}{connection}")
    if status == 404:
        keys = "fabric.workspace, fabric.lakehouse" + (", fabric.connection" if posts else "")
        raise ConfigurationError(f"{keys}: Fabric knows no such thing, or hides it from this identity ({text})")
    if status == 409 and posts:
        raise NameTaken(text)
    if status == 400 and posts:
        raise ConfigurationError(
            f"fabric.connection: Fabric refuses the shortcut's target ({text}); check that the connection is one for "
            "this storage account, that its identity may read the folder, and that the folder is there"
        )
    raise ProtocolError(f"Fabric answered status {text} to a {request.method} request")


def _status_text(response: HttpResponse) -> str:
    """The status, with Fabric's own code for the error where it is a plain word; never its message."""
    try:
        code = msgspec.json.decode(response.body, type=_Error).error_code
    except (msgspec.DecodeError, UnicodeDecodeError):
        code = ""
    return f"{response.status}, {code}" if _CODE.fullmatch(code) else str(response.status)
