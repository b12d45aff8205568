"""The rule of imports, read from the source: rooms import downwards; and what must load without pyspark."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import dicom_etl

SOURCE = Path(dicom_etl.__file__).parents[1]
TOP = "dicom_etl"
EMULATOR = "dicom_emulator"
# Each room imports those before it; rooms of one floor never each other.
FLOORS = (
    ("core",), ("remote",), ("dicomweb", "lake"), ("landing", "tables"), ("run", "outputs"), ("commands",), ("cli",),
)  # fmt: skip
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
WITH_SPARK = {"tables", "run", "commands"}
# The session of a cluster is its own.
SPARK_ELSEWHERE = {"dicom_etl.cli.jobs"}
SPARK = {"pyspark", "delta", "py4j"}


def modules() -> dict[str, Path]:
    """Every module of both packages, by its name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        names = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(name for name in names if name != "__init__")] = path
    return {name: path for name, path in found.items() if name.split(".")[0] in (TOP, EMULATOR)}


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """What a module imports, anywhere in it: names of modules where there is one, else of packages and names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it goes"
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in MODULES else str(node.module)


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] in (TOP, EMULATOR)}


def room(module: str) -> str:
    """`lake` of `dicom_etl.lake.delta.table`; the package itself is no room."""
    return module.split(".")[1] if module.count(".") else ""


def rooms_within(module: str) -> str:
    """`dicom_etl.lake.delta` of `dicom_etl.lake.delta.table`."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def wrong(module: str, imported: set[str]) -> list[str]:
    """The imports of a module of ours that point up or sideways."""
    mine = FLOOR[room(module)]
    others = [name for name in imported if name.startswith(f"{TOP}.") and room(name) != room(module)]
    up = [name for name in others if FLOOR[room(name)] >= mine]
    return sorted(up + [name for name in imported if name.split(".")[0] == EMULATOR and room(module) != "cli"])


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(f"{TOP}.") and room(name) in FLOOR])
def test_a_room_imports_only_rooms_below_it(module: str) -> None:
    """core · remote · dicomweb|lake · landing|tables · run|outputs · commands · cli."""
    assert wrong(module, ours(MODULES[module])) == []


def test_an_import_upwards_is_seen() -> None:
    """The broken twin: up, sideways, and to the emulator."""
    imported = {"dicom_etl.run.plan", "dicom_etl.lake.open", "dicom_etl.core.errors", "dicom_emulator.serve"}
    assert wrong("dicom_etl.dicomweb.search", imported) == [
        "dicom_emulator.serve", "dicom_etl.lake.open", "dicom_etl.run.plan",
    ]  # fmt: skip
    assert wrong("dicom_etl.cli.main", imported) == []


def test_there_are_ten_rooms() -> None:
    """All of them real, and beside them no more than the package's own two files."""
    folder = SOURCE / TOP
    assert {path.name for path in folder.iterdir() if (path / "__init__.py").exists()} == set(FLOOR)
    assert len(FLOOR) == 10
    assert {path.name for path in folder.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert all(ast.get_docstring(ast.parse(path.read_text())) for path in SOURCE.rglob("__init__.py"))


def test_nothing_imports_in_a_circle() -> None:
    """Neither modules nor rooms, those within rooms included; no room is higher than nine floors above `core`."""
    graph = {name: ours(path) & MODULES.keys() - {TOP, name} for name, path in MODULES.items() if name != TOP}
    list(TopologicalSorter(graph).static_order())
    inner: dict[str, set[str]] = {}
    for name, imported in graph.items():
        if name.startswith(f"{TOP}.") and room(name) in FLOOR:
            mine = rooms_within(name)
            others = {other for other in map(rooms_within, imported) if other.startswith(f"{TOP}.")}
            inner.setdefault(mine, set()).update(others - {mine})
    floors: dict[str, int] = {}
    for name in TopologicalSorter(inner).static_order():
        floors[name] = 1 + max((floors[below] for below in inner.get(name, ())), default=-1)
    assert len(floors) > 20
    assert max(floors.values()) <= 9
    with pytest.raises(CycleError):
        list(TopologicalSorter({**graph, "dicom_etl.core.errors": {"dicom_etl.cli.main"}}).static_order())


def test_the_emulator_knows_nothing_of_us() -> None:
    """It is the oracle of the tests."""
    emulator = [path for name, path in MODULES.items() if name.split(".")[0] == EMULATOR]
    assert len(emulator) > 40
    assert not [name for path in emulator for name in ours(path) if name.split(".")[0] == TOP]


def test_spark_is_imported_where_the_rule_says() -> None:
    """In tables, run and commands, and by the jobs' own session."""
    with_spark = {name for name, path in MODULES.items() if SPARK & {one.split(".")[0] for one in imports(path)}}
    assert len(with_spark) > 20
    assert {name for name in with_spark if room(name) not in WITH_SPARK} == SPARK_ELSEWHERE


def test_the_jobs_do_without_the_command_line() -> None:
    """A cluster has neither click nor rich."""
    jobs = sorted((SOURCE.parent / "jobs").glob("*.py"))
    assert {"sync.py", "maintain.py"} <= {job.name for job in jobs}
    for job in jobs:
        typed = {name for name in ours(job) if room(name) == "cli"}
        assert typed <= {"dicom_etl.cli.jobs", "dicom_etl.cli.jsonlines", "dicom_etl.cli.process"}
        assert len(job.read_text().splitlines()) <= 40


@pytest.mark.parametrize(
    "package",
    ["core", "core.settings", "remote", "remote.http", "dicomweb", "dicomweb.feed", "lake", "lake.delta", "lake.claims",
     "landing", "outputs", "outputs.fabric", "outputs.columns", "outputs.fhir", "cli", "commands.upload",
     "commands.metrics"],
)  # fmt: skip
def test_these_load_without_pyspark(package: str) -> None:
    """They are needed where there is no Spark, and its import alone costs a second."""
    code = f"""
import importlib, pkgutil, sys
package = importlib.import_module("dicom_etl.{package}")
for found in pkgutil.iter_modules(getattr(package, "__path__", []), package.__name__ + "."):
    importlib.import_module(found.name)
print(sorted(name for name in sys.modules if name.split(".")[0] in ("pyspark", "delta", "py4j")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
