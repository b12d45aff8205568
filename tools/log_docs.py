"""docs/log-events.md, from the calls of the loggers in the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
_LEVELS = ("debug", "info", "warning", "error", "critical")

_HEAD = """# Log events

For people who read the logs of `dicom-etl` or set alerts on them. `make docs` generates this page from the source; do
not edit it.

Log lines go to standard error. `--log-format json` prints one JSON object a line: `time`, `level`, `logger`, `event`,
and the fields below. `--log-format text` prints time, level, event, and the fields as `name=value`. An event is a
constant text. Fields hold counts, times, ids of runs and names of ours; never a UID, a value or a path
([patient data](phi.md)). Lines of level `debug` are not printed. The last line on standard error of a command that
fails is no event: it is the error ([exit codes](exit-codes.md)).

| event | level | fields | logger |
|---|---|---|---|
"""


@dataclass(frozen=True, slots=True, order=True)
class LogEvent:
    """One call of a logger; ``level`` joins the levels when the call chooses one."""

    event: str
    logger: str
    level: str
    fields: tuple[str, ...]


def log_events_document() -> str:
    """The whole of docs/log-events.md. Raises ValueError for a call whose event or fields cannot be read."""
    events: set[LogEvent] = set()
    for path in sorted((SOURCE / "dicom_etl").rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        events.update(log_events(path.read_text(encoding="utf-8"), name))
    return _HEAD + "".join(map(_row, sorted(events)))


def _row(one: LogEvent) -> str:
    fields = ", ".join(f"`{name}`" for name in one.fields)
    return f"| {one.event} | {one.level} | {fields} | `{one.logger}` |\n"


def log_events(source: str, module: str) -> Iterator[LogEvent]:
    """The events that the text of a module logs. Raises ValueError for one whose event or fields cannot be read."""
    tree = ast.parse(source)
    loggers = {name for name, value in _assignments(tree) if ast.unparse(value) == "logging.getLogger(__name__)"}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        method = call.func
        if not (isinstance(method, ast.Attribute) and isinstance(method.value, ast.Name)):
            continue
        if method.value.id in loggers:
            yield _event(call, method.attr, module, tree)


def _event(call: ast.Call, method: str, module: str, tree: ast.Module) -> LogEvent:
    level, texts = ([method], call.args) if method in _LEVELS else (_levels(call.args[0]), call.args[1:])
    if len(texts) != 1 or not (isinstance(texts[0], ast.Constant) and isinstance(texts[0].value, str)):
        raise ValueError(f"{module}, line {call.lineno}: the event is not one constant text")
    fields: list[str] = []
    for extra in (keyword.value for keyword in call.keywords if keyword.arg == "extra"):
        fields += _fields(extra, tree, f"{module}, line {call.lineno}")
    return LogEvent(texts[0].value, module, " or ".join(level), tuple(fields))


def _levels(level: ast.expr) -> list[str]:
    """The levels that an expression of `log.log` names."""
    names = (node.attr.lower() for node in ast.walk(level) if isinstance(node, ast.Attribute))
    return [name for name in names if name in _LEVELS]


def _fields(extra: ast.expr, tree: ast.Module, line: str) -> list[str]:
    """The names of fields: of a dictionary, of one that the module assigns, or of one that its function returns."""
    match extra:
        case ast.Dict(keys, values):
            fields: list[str] = []
            for key, value in zip(keys, values, strict=True):
                fields += _fields(value, tree, line) if key is None else [str(ast.literal_eval(key))]
            return fields
        case ast.Name(name):
            found = [value for assigned, value in _assignments(tree) if assigned == name]
        case ast.Call(ast.Name(name) | ast.Attribute(attr=name)):
            found = list(_returned(tree, name))
        case _:
            found = []
    if len(found) != 1:
        raise ValueError(f"{line}: the fields are not names that can be read in the module")
    return _fields(found[0], tree, line)


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _returned(tree: ast.Module, function: str) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            yield from (one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value is not None)
