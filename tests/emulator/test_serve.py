"""The blocking entry point in a process of its own: address, loading, signals, and a quiet stderr."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pydicom
import pytest

SCRIPT = """
import sys
from dicom_emulator import serve
serve(
    load=sys.argv[2:], lake=sys.argv[1],
    ready=lambda address: print(address, flush=True),
    loaded=lambda path, outcome: print(path.name, outcome.failure, *outcome.comments, flush=True),
)
print("stopped", flush=True)
"""


@pytest.mark.control
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_loads_serves_and_stops_on_a_signal(dicom, tmp_path, number):
    """Loaded files are in the feed and the lake, refused ones have a reason; a signal ends it with 0."""
    folder = tmp_path / "files"
    folder.mkdir()
    file = dicom({"00100010": "Canary^Name", "00080020": "Canary"})
    (folder / "a.dcm").write_bytes(file.content)
    (folder / "b.dcm").write_bytes(dicom({"00100020": ...}).content)
    (folder / "c.txt").write_bytes(b"no DICOM")
    odd = Path(pydicom.data.get_testdata_file("badVR.dcm", download=False))
    (folder / "odd.dcm").write_bytes(odd.read_bytes())
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "lake"), str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        try:
            lines = [run.stdout.readline().strip() for _ in range(5)]
            assert lines[:3] == [
                'a.dcm None DICOM100: (0008,0020) - Content "Canary" does not validate VR DA: '
                "one of the date values does not match the pattern YYYYMMDD",
                "b.dcm 43264 DICOM100: (0010,0020) - The required tag '(0010,0020)' is missing.",
                "c.txt 272",
            ]
            assert lines[3].startswith("odd.dcm None DICOM100: ")
            assert lines[4].startswith("http://127.0.0.1:")
            row, _ = httpx.get(f"{lines[4]}/v2/changefeed").json()
            assert (tmp_path / "lake" / row["filePath"]).read_bytes() == file.content
            httpx.get(f"{lines[4]}/v2/studies", params={"PatientName": "Canary"})
            run.send_signal(number)
            out, err = run.communicate(timeout=20)
        finally:
            run.kill()
    assert (run.returncode, out, err) == (0, "stopped\n", "")


@pytest.mark.control
def test_an_address_in_use_is_an_os_error(make_emulator):
    """The caller hears that it cannot listen; nothing is served."""
    from dicom_emulator import serve

    emulator, _ = make_emulator()
    port = int(emulator.base_url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="in use"):
        serve(port=port)


@pytest.mark.control
def test_the_emulator_imports_nothing_else_of_ours():
    """Importing it loads no other module of dicom_etl than the package itself."""
    program = "import sys, dicom_emulator; print([n for n in sys.modules if n.startswith('dicom_e')])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, cwd=Path.cwd()
    )
    assert "dicom_emulator.http.app" in run.stdout
    assert [name for name in eval(run.stdout) if not name.startswith("dicom_emulator")] == []  # noqa: S307
