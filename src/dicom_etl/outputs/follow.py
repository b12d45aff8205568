"""From which run to which an output is to be brought, and by what: the contract of all outputs.

design/outputs.md: The contract. An output is a function of the tables as a run left them, computed for the keys that
the runs since its last execution touched; never from an event.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from dicom_etl.lake.ledger import Run, last_rebuild
from dicom_etl.lake.past import last_run
from dicom_etl.outputs.execution import Execution, Mode

# Their runs change or remove rows of which no entry of `change` tells.
SILENT_VERBS = ("repair", "adopt")


@dataclass(frozen=True, slots=True)
class Step:
    """What an execution is to do: bring the output from run ``since`` to the tables as the run ``target`` left them.

    ``rebuilt`` is the last run that rebuilt the tables, 0 without one. It has read the whole feed; what earlier runs
    have read may be of a service that was restored since, and counts its sequences again.
    """

    target: Run
    since: int
    mode: Mode
    rebuilt: int = 0

    @property
    def to_run(self) -> int:
        return self.target.run_id

    @property
    def after_rebuild(self) -> bool:
        """Whether what the output holds was made before the tables were rebuilt."""
        return self.since < self.rebuilt


def next_step(runs: Collection[Run], last: Execution | None, *, forced: Mode | None = None) -> Step | None:
    """The step that is due, or None where the output has what the tables have.

    ``last`` is the output's last execution that succeeded; without one everything is computed. Keys are taken from the
    entries of the runs in between, or, where one of these changed rows without an entry, from a comparison of the
    output with the tables. ``forced`` asks for a mode, also where nothing is due. Raises DataError when no run of this
    lake has succeeded.
    """
    target = last_run(runs)
    rebuilt = last_rebuild(runs)
    since = 0 if last is None else last.to_run
    if last is None:
        return Step(target, 0, "full", rebuilt)
    if forced is not None:
        return Step(target, since, forced, rebuilt)
    if since == target.run_id:
        return None
    # A ledger that was put back to an older state: what the output holds may be of runs that are not any more.
    behind = since > target.run_id
    return Step(target, since, "compare" if behind or _silent(runs, since, target.run_id) else "changed", rebuilt)


def _silent(runs: Iterable[Run], since: int, until: int) -> bool:
    """Whether a run in (since, until] may have changed rows without an entry; failed ones may have committed, too."""
    return any(run.verb in SILENT_VERBS and since < run.run_id <= until for run in runs)


def restored(last: Execution, versions: Mapping[str, int | None]) -> list[str]:
    """Those of the output's tables that are older than its last execution left them, or gone: they were put back."""
    now = {name: -1 if version is None else version for name, version in versions.items()}
    return sorted(name for name, left in last.versions.items() if now.get(name, -1) < left)


def oldest_needed(all_executions: Iterable[Execution]) -> tuple[int, str] | None:
    """The run up to which every output has taken the entries of `change`, and the output that is the last.

    None where no output has succeeded yet: its first execution reads everything. `maintain` purges nothing above it.
    """
    reached: dict[str, int] = {}
    for one in (one for one in all_executions if one.status == "succeeded"):
        reached[one.output] = max(reached.get(one.output, 0), one.to_run)
    return min(((run, name) for name, run in reached.items()), default=None)
