"""The fixtures of the tests with a real FHIR server, HAPI, which are a tier of their own: `make test-fhir`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.fhir.hapi import Hapi


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that lies here starts HAPI, which is a JVM."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("fhir")
            item.add_marker("jvm")


@pytest.fixture(scope="session")
def installed() -> None:
    """HAPI can be started."""
    from tests.fhir.jars import missing

    if why := missing():
        pytest.skip(why)


@pytest.fixture(scope="session")
def hapi(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hapi]:  # noqa: ARG001
    """The one HAPI of the session, empty at its start; each test has ids and UIDs of its own."""
    from tests.fhir.hapi import hapi

    with hapi(tmp_path_factory.mktemp("hapi")) as running:
        yield running


@pytest.fixture(scope="session")
def validating(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hapi]:  # noqa: ARG001
    """The same, refusing resources that are not valid (422)."""
    from tests.fhir.hapi import hapi

    with hapi(tmp_path_factory.mktemp("validating"), validate=True) as running:
        yield running


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    """For both; the first request of a kind takes HAPI long."""
    with httpx.Client(timeout=120) as client:
        yield client
