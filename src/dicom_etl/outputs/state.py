"""How far each output is behind the tables, by the ledgers alone: no JVM is started."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dicom_etl.core.clock import utc_now
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.open import existing_lake
from dicom_etl.outputs.execution import Execution, executions, last_succeeded, open_executions
from dicom_etl.outputs.follow import oldest_needed


@dataclass(frozen=True, slots=True)
class OutputState:
    """An output: the run that its last execution reached, and the last run that it could have.

    ``lag_seconds``: for how long there has been a run that the output lacks; 0 where there is none. ``failed`` is the
    class of the error of its newest execution, None when that succeeded. ``holds_purge``: `maintain` keeps entries of
    `change` because this output has not taken them yet.
    """

    output: str
    reached_run: int
    last_run: int
    runs_behind: int
    lag_seconds: float
    last_ended: datetime
    failed: str | None
    holds_purge: bool

    def as_row(self) -> dict[str, Any]:
        """By name, as a command prints it."""
        return {
            "output": self.output,
            "reachedRun": self.reached_run,
            "lastRun": self.last_run,
            "runsBehind": self.runs_behind,
            "lagSeconds": self.lag_seconds,
            "lastEnded": self.last_ended,
            "lastError": self.failed,
            "holdsPurge": self.holds_purge,
        }


def outputs(settings: Settings, *, clock: Callable[[], datetime] = utc_now) -> list[OutputState]:
    """The state of every output that has been executed. Raises ConfigurationError when there is no lake."""
    snapshot = existing_lake(settings, private=False)
    return output_states(snapshot.runs(), executions(open_executions(snapshot.lake)), clock())


def output_states(runs: Collection[Run], all_executions: Collection[Execution], now: datetime) -> list[OutputState]:
    """The state of every output that has been executed, by name; ``now`` is aware."""
    held = oldest_needed(all_executions)
    names = sorted({one.output for one in all_executions})
    return [_state(name, runs, all_executions, held, now) for name in names]


def _state(
    name: str,
    runs: Collection[Run],
    all_executions: Collection[Execution],
    held: tuple[int, str] | None,
    now: datetime,
) -> OutputState:
    last = last_succeeded(all_executions, name)
    newest = max((one for one in all_executions if one.output == name), key=lambda one: one.execution_id)
    reached = 0 if last is None else last.to_run
    lacking = [run for run in runs if run.status == "succeeded" and run.run_id > reached]
    waiting = (now - min(run.finished_at for run in lacking)).total_seconds() if lacking else 0.0
    return OutputState(
        output=name,
        reached_run=reached,
        last_run=max((run.run_id for run in runs if run.status == "succeeded"), default=0),
        runs_behind=len(lacking),
        lag_seconds=max(0.0, waiting),
        last_ended=newest.finished_at,
        failed=newest.error_class,
        holds_purge=bool(lacking) and held is not None and held[1] == name,
    )
