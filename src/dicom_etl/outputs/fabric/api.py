"""The shortcuts of one lakehouse, over the REST API of Microsoft Fabric ("OneLake Shortcuts", v1).

A listing tells every shortcut; a POST makes one (201) or overwrites one (200), by `shortcutConflictPolicy`.
What the API promises of a POST is little: that `Abort` touches nothing whose name is taken, and that
`OverwriteOnly` makes nothing new. No more is relied on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal
from urllib.parse import unquote

from dicom_etl.core.errors import ProtocolError
from dicom_etl.core.settings.model import Fabric
from dicom_etl.outputs.fabric.responses import Shortcut, page, raise_for_status
from dicom_etl.remote.http.body import TooLarge
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.http.endpoint import Endpoint
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import HttpResponse
from dicom_etl.remote.identity import TokenSource

_LARGEST_BYTES = 16 << 20
_MOST_PAGES = 1000


def fabric_endpoint(fabric: Fabric, token: TokenSource) -> Endpoint:
    """Fabric's API as the client calls it. A throttled caller is told to wait about a minute, also at first."""
    return Endpoint("Fabric", fabric.api_url, "fabric.api_url", raise_for_status, token, gateway_statuses=frozenset())


class LakehouseShortcuts:
    """The shortcuts of the lakehouse that the settings name; to be closed at the end."""

    def __init__(
        self,
        fabric: Fabric,
        token: TokenSource,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = HttpClient(fabric_endpoint(fabric, token), sleep=sleep, monotonic=monotonic)
        self._path = f"/workspaces/{fabric.workspace}/items/{fabric.lakehouse}/shortcuts"

    def __enter__(self) -> LakehouseShortcuts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def listed(self) -> dict[str, Shortcut]:
        """All shortcuts of the lakehouse by their place, such as Tables/instance."""
        by_place: dict[str, Shortcut] = {}
        params: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            shortcuts, token = page(self._send(HttpRequest(self._path, params=params, max_bytes=_LARGEST_BYTES)))
            by_place |= {shortcut.place: shortcut for shortcut in shortcuts}
            if not token:
                return by_place
            # Fabric gives the token encoded for a URL; encoded twice it is not known any more.
            params = {"continuationToken": unquote(token)}
        raise ProtocolError("Fabric's list of shortcuts has no end")

    def make(self, shortcut: Shortcut) -> None:
        """Make a new one. Raises NameTaken, and then nothing was changed."""
        self._post(shortcut, "Abort")

    def overwrite(self, shortcut: Shortcut) -> None:
        """Point an existing shortcut elsewhere; never makes one. Raises NameTaken."""
        self._post(shortcut, "OverwriteOnly")

    def _post(self, shortcut: Shortcut, policy: Literal["Abort", "OverwriteOnly"]) -> None:
        target = shortcut.target
        if target is None:
            raise TypeError("only shortcuts to Azure storage are made")
        adls = {"location": target.location, "subpath": target.subpath, "connectionId": target.connection}
        body = {"path": shortcut.path, "name": shortcut.name, "target": {"adlsGen2": adls}}
        request = HttpRequest(
            self._path,
            "POST",
            params={"shortcutConflictPolicy": policy},
            json=body,
            expected=frozenset({200, 201}),
            max_bytes=_LARGEST_BYTES,
        )
        self._send(request)

    def _send(self, request: HttpRequest) -> HttpResponse:
        try:
            return self._client.send(request, lambda response: response)
        except TooLarge as error:
            raise ProtocolError("Fabric's answer is longer than any list of shortcuts") from error
