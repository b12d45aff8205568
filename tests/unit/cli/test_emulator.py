"""The words of `dicom-etl emulator`: origins of pages that may read its answers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from dicom_etl.cli.main import cli
from dicom_etl.core.errors import UsageError


def test_origins_reach_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(import_module("dicom_emulator.serve"), "serve", lambda **how: given.update(how))
    words = ["emulator", "--cors-origin", "http://127.0.0.1:3000", "--cors-origin", "https://viewer.example.org"]
    assert cli.main(words, prog_name="dicom-etl", standalone_mode=False) == 0
    assert list(given["options"].cors_origins) == ["http://127.0.0.1:3000", "https://viewer.example.org"]


@pytest.mark.parametrize("origin", ["viewer", "127.0.0.1:3000", "http://viewer/", "http://viewer/app", "*", "ftp://v"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    """A browser sends scheme, host and port, and never a path: another text would match nothing."""
    with pytest.raises(UsageError, match="--cors-origin: expected an origin without a path"):
        cli.main(["emulator", "--cors-origin", origin], prog_name="dicom-etl", standalone_mode=False)
