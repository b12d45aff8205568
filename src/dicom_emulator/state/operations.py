"""Long-running operations and how often they are asked for before they are done.

design/service-protocol.md: Operations.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicom_emulator.state.timestamps import timestamp_text

Work = Callable[[], tuple[bool, dict[str, Any]]]
"""What an operation does; whether it succeeded, and its results."""


@dataclass
class Operation:
    """One operation; `work` runs once, at the poll that finds it due, and is None after."""

    id: str
    type: str
    created_ticks: int
    polls_left: int
    work: Work | None
    status: str = "running"
    updated_ticks: int = 0
    results: dict[str, Any] = field(default_factory=dict)
    resources: tuple[str, ...] = ()

    def body(self, version: int) -> dict[str, Any]:
        """The answer to a poll; API v1 says `completed` for `succeeded`."""
        done = self.status in ("succeeded", "failed")
        shown = "completed" if version == 1 and self.status == "succeeded" else self.status
        body: dict[str, Any] = {
            "operationId": self.id,
            "type": self.type,
            "createdTime": timestamp_text(self.created_ticks),
            "lastUpdatedTime": timestamp_text(self.updated_ticks),
            "status": shown,
            "percentComplete": 100 if done else 0,
        }
        if self.resources:
            body["resources"] = list(self.resources)
        return body | ({"results": self.results} if done and self.results else {})


class Operations:
    """All operations by id; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._all: dict[str, Operation] = {}

    def start(
        self,
        kind: str,
        polls: int,
        now_ticks: int,
        work: Work,
        *,
        operation_id: str | None = None,
        resources: Sequence[str] = (),
    ) -> Operation:
        """Begins an operation, done at once when `polls` is 0, else at the poll after so many.

        `operation_id` is a new one unless given; `resources` are the addresses of what the operation works on.
        """
        with self._lock:
            operation = Operation(
                operation_id or new_id(),
                kind,
                now_ticks,
                polls,
                work,
                updated_ticks=now_ticks,
                resources=tuple(resources),
            )
            self._all[operation.id] = operation
            if polls == 0:
                _finish(operation, work, now_ticks)
            return operation

    def poll(self, operation_id: str, now_ticks: int) -> Operation | None:
        """The operation, one poll nearer to its end; None when there is none of that id."""
        with self._lock:
            operation = self._all.get(operation_id)
            if operation is not None and operation.work is not None:
                if operation.polls_left == 0:
                    _finish(operation, operation.work, now_ticks)
                else:
                    operation.polls_left -= 1
            return operation

    def is_running(self, kind: str) -> bool:
        """Whether an operation of that type is not done."""
        with self._lock:
            return any(one.type == kind and one.work is not None for one in self._all.values())


def new_id() -> str:
    """An id that no operation has."""
    return uuid.uuid4().hex


def _finish(operation: Operation, work: Work, now_ticks: int) -> None:
    succeeded, operation.results = work()
    operation.status = "succeeded" if succeeded else "failed"
    operation.updated_ticks = now_ticks
    operation.work = None
