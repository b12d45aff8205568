"""The end of a process: its code, what it has said, and nothing that Python would do after that."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import dicom_emulator.serve  # noqa: F401  the package has a function of the same name
from dicom_etl import __version__
from dicom_etl.cli.main import cli
from dicom_etl.core.errors import ConfigurationError

JOBS = Path(__file__).parents[3] / "jobs"
# As threads of delta-rs do it: the work is done, and Python's own end is what aborts.
ABORTS = "import atexit, os\natexit.register(os.abort)\n"


def ended(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], env={**os.environ, **more}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("code", [0, 75])
def test_a_process_leaves_with_its_code_whatever_python_would_do_then(code: int) -> None:
    """All that was said has come out before; with SystemExit, the broken twin, the code is lost."""
    script = f"{ABORTS}import sys\nfrom dicom_etl.cli.process import exit_process\nsys.stdout.write('said')\n"
    done = ended("-c", f"{script}exit_process({code})")
    assert (done.returncode, done.stdout) == (code, "said")
    assert ended("-c", f"{script}raise SystemExit({code})").returncode == -6


def test_a_panic_of_a_library_ends_as_one_line() -> None:
    """delta-rs raises one as what is no Exception; its words are not repeated, and 1 is no code of ours for it."""
    script = (
        "from dicom_etl.cli.process import exit_process, run_command\n"
        "class PanicException(BaseException): ...\n"
        "def command(): raise PanicException('Smith^John')\n"
        "exit_process(run_command(command))\n"
    )
    done = ended("-c", script)
    assert done.returncode == 70
    assert done.stderr.startswith("dicom-etl: internal error (PanicException at ")
    assert (len(done.stderr.splitlines()), "Smith" in done.stderr) == (1, False)


def test_a_notebooks_process_goes_on_in_databricks() -> None:
    """There a job runs in the process of the notebook: only an exception may leave it."""
    script = (
        "from dicom_etl.cli.process import exit_process\n"
        "try:\n    exit_process(75)\nexcept SystemExit as end:\n    print(end.code)\n"
    )
    done = ended("-c", script, DATABRICKS_RUNTIME_VERSION="16.4")
    assert (done.returncode, done.stdout) == (0, "75\n")


def test_commands_and_jobs_leave_so(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ABORTS)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    assert ended("-c", "", PYTHONPATH=path).returncode == -6
    done = ended("-m", "dicom_etl", "--version", PYTHONPATH=path)
    assert (done.returncode, done.stdout.splitlines()[0].split()[0]) == (0, "dicom-etl")
    for job in ("sync.py", "maintain.py"):
        assert ended(str(JOBS / job), "--no-such-option", PYTHONPATH=path).returncode == 64


def test_the_demo_asks_for_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the user may be wrong, or of a real service."""
    monkeypatch.setenv("DICOM_ETL__NO__SUCH", "1")
    monkeypatch.setattr("dicom_etl.commands.demo.demo.main", lambda _fhir: 0)
    assert cli.main(["demo"], standalone_mode=False) == 0
    with pytest.raises(ConfigurationError, match="no"):
        cli.main(["config"], standalone_mode=False)


def test_a_package_that_is_missing_comes_from_the_wheels_file() -> None:
    """The name dicom-etl on a public index is not ours: no line may send anybody there."""
    script = (
        "from dicom_etl.cli.process import exit_process, run_command\n"
        "def command(): raise ModuleNotFoundError('No module', name='click')\n"
        "exit_process(run_command(command))\n"
    )
    done = ended("-c", script)
    assert (done.returncode, done.stderr) == (
        78,
        "dicom-etl: the package click is not installed: install the wheel's file with its extras, "
        f"./dicom_etl-{__version__}-py3-none-any.whl[all]\n",
    )


def test_help_tells_each_command_whole() -> None:
    """In 80 columns as well, where click would cut a summary."""
    done = ended("-m", "dicom_etl", "--help", COLUMNS="80")
    assert done.returncode == 0
    assert set(cli.commands) <= set(re.findall(r"^  (\w+) ", done.stdout, re.MULTILINE))
    assert "..." not in done.stdout.partition("Commands:")[2]
    assert "clock, storage, Java and jars" in done.stdout


def test_the_emulator_says_how_many_files_it_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind its address, which stays the first line; nothing where nothing was to be loaded."""
    outcomes = [SimpleNamespace(failure=None), SimpleNamespace(failure=272, comments=["no SOP instance UID"])]

    def serve(*, ready: Any, loaded: Any, load: list[Path], **_: Any) -> None:
        for path, outcome in zip(load, outcomes, strict=False):
            loaded(path, outcome)
        ready("http://127.0.0.1:8080")

    monkeypatch.setattr(sys.modules["dicom_emulator.serve"], "serve", serve)
    run = partial(CliRunner().invoke, cli)
    assert run(["emulator", "--load", "pyproject.toml", "--load", "README.md"]).stdout.splitlines() == [
        "DICOM service at http://127.0.0.1:8080", "loaded 1 of 2 files",
    ]  # fmt: skip
    assert run(["emulator"]).stdout.splitlines() == ["DICOM service at http://127.0.0.1:8080"]
