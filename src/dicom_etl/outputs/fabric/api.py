"""The shortcuts of one lakehouse, over the REST API of Microsoft Fabric ("OneLake Shortcuts", v1).

A listing tells every shortcut; a POST makes one (201) or overwrites one (200), by `shortcutConflictPolicy`.
What the API promises of a POST is little: that `Abort` touches nothing whose name is taken, and that
`OverwriteOnly` makes nothing new. No more is relied on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal
from urllib.parse import unquote

import httpx
import msgspec
import tenacity

from dicom_etl.core.errors import ProtocolError, ServiceUnavailable
from dicom_etl.core.settings.model import Dicom, Fabric
from dicom_etl.outputs.fabric.responses import Shortcut, error_of, page
from dicom_etl.remote.http.body import TooLarge
from dicom_etl.remote.http.response import Answer
from dicom_etl.remote.http.retry import MAX_ATTEMPTS, Failure, Kind, failure_of, wait_seconds
from dicom_etl.remote.http.transport import Call, Token, Wire

TIMEOUT_SECONDS = 60.0
# Fabric asks a throttled caller to wait about a minute.
RETRY_SECONDS = 300.0
# A wrong address should be said soon.
UNREACHABLE_SECONDS = 30.0
_LARGEST_BYTES = 16 << 20
_MOST_PAGES = 1000

log = logging.getLogger(__name__)


class LakehouseShortcuts:
    """The shortcuts of the lakehouse that the settings name; to be closed at the end."""

    def __init__(
        self,
        fabric: Fabric,
        token: Token,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        # One request with a token and without retries: there is nothing of DICOM in it.
        service = Dicom(
            base_url=fabric.api_url,
            api_version=2,
            auth="token",
            token_env="",
            connections=1,
            timeout_seconds=TIMEOUT_SECONDS,
            retry_seconds=RETRY_SECONDS,
        )
        self._wire = Wire(service, token, monotonic=monotonic, wall_clock=wall_clock, transport=transport)
        self._path = f"/workspaces/{fabric.workspace}/items/{fabric.lakehouse}/shortcuts"
        self._sleep = sleep
        self._monotonic = monotonic

    def __enter__(self) -> LakehouseShortcuts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wire.close()

    def listed(self) -> dict[str, Shortcut]:
        """All shortcuts of the lakehouse by their place, such as Tables/instance."""
        found: dict[str, Shortcut] = {}
        params: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            shortcuts, token = page(self._send(Call(self._path, params=params, max_bytes=_LARGEST_BYTES)))
            found |= {shortcut.place: shortcut for shortcut in shortcuts}
            if not token:
                return found
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
        call = Call(
            self._path,
            "POST",
            params={"shortcutConflictPolicy": policy},
            headers={"Content-Type": "application/json"},
            content=msgspec.json.encode(body),
            expected=frozenset({200, 201}),
            max_bytes=_LARGEST_BYTES,
        )
        self._send(call)

    def _send(self, call: Call) -> Answer:
        since = self._monotonic()

        def stop(state: tenacity.RetryCallState) -> bool:
            budget = UNREACHABLE_SECONDS if failure_of(state).kind is Kind.UNREACHABLE else RETRY_SECONDS
            too_late = self._monotonic() + state.upcoming_sleep > since + budget
            return too_late or state.attempt_number >= MAX_ATTEMPTS

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Failure),
            wait=lambda state: wait_seconds(failure_of(state), state.attempt_number),
            stop=stop,
            sleep=self._sleep,
            before_sleep=_note_retry,
            reraise=True,
        )
        try:
            return retrying(self._attempt, call)
        except Failure as failure:
            raise ServiceUnavailable(f"Fabric at {self._wire.host} {_advice(failure)}") from failure
        except TooLarge as error:
            raise ProtocolError("Fabric's answer is longer than any list of shortcuts") from error

    def _attempt(self, call: Call) -> Answer:
        answer = self._wire.exchange(call)
        if answer.status not in call.expected:
            raise error_of(answer, call.method)
        return answer


def _note_retry(state: tenacity.RetryCallState) -> None:
    fields = {"reason": failure_of(state).reason, "attempt": state.attempt_number}
    log.warning("Fabric is asked again", extra={**fields, "wait_seconds": round(state.upcoming_sleep, 3)})


def _advice(failure: Failure) -> str:
    hint = "run again later"
    if failure.kind is Kind.UNREACHABLE:
        hint = "check fabric.api_url and the network"
    elif failure.retry_after is not None:
        hint = f"it asks to wait {failure.retry_after:.0f} s; run again later"
    return f"{failure.kind.value}: {failure.reason}; {hint}"
