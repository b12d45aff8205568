"""The rule of imports (architecture §3), read from the source; and what must load without pyspark."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dicom_etl

ROOT = Path(dicom_etl.__file__).parent
VOCABULARY = {
    "errors", "settings", "setting_rules", "window", "attributes", "entry", "address", "progress", "clock", "logs",
    "exits",
}  # fmt: skip
BASE = {"azure", "token_endpoint", "storage", "places", "deltalog"}
PACKAGES = {"dicomweb", "landing", "runs", "lake"}
OUTPUTS = "outputs"
TOP = {
    "cli", "cli_options", "cli_sync", "cli_status", "cli_rejects", "cli_compare", "cli_doctor", "cli_fabric", "demo",
    "demo_plan", "__main__",
}  # fmt: skip
PACKAGE_ROOT = "__init__"


def part_of(module: str) -> str:
    """`dicomweb` of `dicom_etl.dicomweb.client`; `__init__` of `dicom_etl`."""
    return module.split(".")[1] if "." in module else PACKAGE_ROOT


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        names = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(["dicom_etl", *(name for name in names if name != "__init__")]), path


def imported(path: Path) -> set[str]:
    """The parts of dicom_etl that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it goes"
            if node.module == "dicom_etl":
                found |= {f"dicom_etl.{name.name}" for name in node.names}
            elif node.module:
                found.add(node.module)
    parts = {part_of(name) for name in found if name.split(".")[0] == "dicom_etl"}
    # `from dicom_etl import __version__` is the package itself.
    return {part if (ROOT / part).exists() or (ROOT / f"{part}.py").exists() else PACKAGE_ROOT for part in parts}


def allowed(part: str) -> set[str] | None:
    """What a part may import; None: anything but the emulator."""
    if part in VOCABULARY:
        return VOCABULARY
    if part in BASE:
        return VOCABULARY | BASE
    if part in PACKAGES:
        return VOCABULARY | BASE | {part}
    if part == OUTPUTS:
        return VOCABULARY | BASE | PACKAGES | {part}
    if part == "emulator":
        return {"emulator"}
    if part == PACKAGE_ROOT:
        return set()
    return None


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_modules_import_only_what_they_may(module: str, path: Path) -> None:
    """Vocabulary only itself; packages never each other; outputs no verbs; only cli and demo the emulator."""
    part = part_of(module)
    found = imported(path) - {PACKAGE_ROOT}
    may = allowed(part)
    if may is not None:
        assert found <= may
    elif part not in TOP:
        assert not found & (TOP | {"emulator"})


def test_the_rule_meets_every_part() -> None:
    """The names above are those of real modules, so that the rule cannot pass on nothing."""
    parts = {part_of(module) for module, _ in modules()}
    others = {OUTPUTS, "emulator", "cli", "demo", "sync", "verify"}
    assert (VOCABULARY - {"setting_rules"}) | BASE | PACKAGES | others <= parts
    assert imported(ROOT / "sync.py") >= {"runs", "lake", "dicomweb", "settings"}
    assert imported(ROOT / "cli.py") >= {"cli_sync", "cli_compare", "maintain", "emulator"}
    assert imported(ROOT / "cli_sync.py") >= {"sync", "watch"}


def test_the_jobs_do_without_the_command_line() -> None:
    """A cluster has neither click nor rich."""
    jobs = sorted((ROOT.parents[1] / "jobs").glob("*.py"))
    assert {"sync.py", "maintain.py"} <= {job.name for job in jobs}
    for job in jobs:
        names = imported(job)
        assert not names & (TOP | {"terminal", "printing", "emulator"})
        assert len(job.read_text().splitlines()) <= 40


@pytest.mark.parametrize(
    "package", ["dicomweb", "landing", "runs", "deltalog", "azure", "cli", "status", "upload", "emulator", "outputs"]
)
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
