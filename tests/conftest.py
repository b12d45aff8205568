"""Fixtures of all tests: one Spark session for the whole process, and a service with its lake.

Only tests that ask for `spark` (or `site`, which uses it) start a JVM. The process's own time zone is not UTC,
so that a local time that leaks anywhere is seen.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from support.azurite import Azurite
    from support.site import Site

ZONE = "Asia/Kathmandu"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--azurite`: lakes lie in a container of Azurite, and tests that look into a local folder are skipped."""
    parser.addoption("--azurite", action="store_true", help="put the lakes of `site` into Azurite (make test-azure)")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is imported that looks: no settings of whoever runs the tests, and a zone that shows."""
    del config
    for name in list(os.environ):
        ours = name.startswith("DICOM_ETL__") or name in ("DICOM_ETL_CONFIG", "DICOM_ETL_TOKEN")
        if ours or name.lower() in _PROXIES:
            del os.environ[name]
    os.environ["TZ"] = ZONE
    time.tzset()
    # What a cluster says for its own Python: else a session that is handed in takes the shell's python3.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    # A shell lets what it starts in the background ignore it, and so would every program that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for the session, and begin with the files that take longest: two workers end together then."""
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker("jvm")
    with_spark = {item.path for item in items if item.get_closest_marker("jvm")}
    items.sort(key=lambda item: item.path not in with_spark)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """The one session of the test process: ours, or the one that another runtime hands in."""
    from dicom_etl.core.settings.load import load_settings
    from dicom_etl.tables.engine.session import cluster_session, local_session
    from support import runtime

    if runtime.named():
        with runtime.cluster() as given:
            yield cluster_session(given)
        return
    overrides = ["spark.master=local[2]", "spark.driver_memory=3g", "spark.shuffle_partitions=2"]
    with local_session(load_settings(None, overrides, {}, Path("/nonexistent")).spark, rows=0) as session:
        yield session


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """One Azurite for the whole process."""
    from support import azurite

    if why := azurite.missing():
        pytest.skip(why)
    with azurite.azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture(scope="session")
def elsewhere(request: pytest.FixtureRequest) -> Callable[[Site], Site]:
    """What puts a site's lake where the tests want it: into its folder, or with --azurite into a container."""
    if not request.config.getoption("--azurite"):
        return lambda site: site
    azurite: Azurite = request.getfixturevalue("azurite")
    spark: SparkSession = request.getfixturevalue("spark")
    container = azurite.container().container_name
    return lambda site: azurite.holding(site, container, spark)


@pytest.fixture(scope="session")
def _make_site(spark: SparkSession, elsewhere: Callable[[Site], Site]) -> Callable[..., Any]:
    from dicom_emulator.options import EmulatorOptions
    from dicom_emulator.serve import serve_in_thread
    from support.site import Site, at

    def make(stack: ExitStack, folder: Path, *overrides: str, **options: Any) -> Site:
        emulator = stack.enter_context(serve_in_thread(EmulatorOptions(lake=folder / "files", **options)))
        emulator.service.clock.freeze(at(8), step=10_000_000)
        return elsewhere(Site(emulator, folder, overrides, spark))

    return make


@pytest.fixture
def make_site(
    _make_site: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Site]]:
    """Makes services, each with an empty lake of its own; settings as texts of --set, the emulator's options by name.

    Its clock is frozen at 08:00 of the tests' day; each event moves it by a second.
    """
    with ExitStack() as stack:
        yield lambda *overrides, **options: _make_site(stack, tmp_path_factory.mktemp("site"), *overrides, **options)


@pytest.fixture(scope="module")
def make_shared_site(
    _make_site: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Site]]:
    """The same, living as long as the module's tests."""
    with ExitStack() as stack:
        yield lambda *overrides, **options: _make_site(stack, tmp_path_factory.mktemp("site"), *overrides, **options)


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """A service and its empty lake."""
    return make_site()


@contextmanager
def _process_restored() -> Iterator[None]:
    """What the program sets for its whole process is set back: its logs, its zone, its signals."""
    ours, everything = logging.getLogger("dicom_etl"), logging.getLogger()
    before = (ours.handlers[:], ours.level, ours.propagate, everything.handlers[:])
    handler = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        yield
    ours.handlers[:], ours.level, ours.propagate, everything.handlers[:] = before
    logging.captureWarnings(False)
    signal.signal(signal.SIGTERM, handler)
    os.environ["TZ"] = ZONE
    time.tzset()


@pytest.fixture
def command(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `dicom-etl VERB …` for a site in this process: exit code, standard output, what it says of errors.

    Its verbs start no JVM of their own: they get the one that all tests share.
    """
    from dicom_etl.cli.main import run
    from dicom_etl.cli.process import run_command
    from dicom_etl.tables.engine import session

    @contextmanager
    def shared(*_: Any, **__: Any) -> Iterator[SparkSession]:
        yield session.cluster_session(spark)

    def typed(site: Site, verb: str, *words: str) -> tuple[int, str, str]:
        settings = [f"--set={text}" for text in site.texts]
        monkeypatch.setattr(sys, "argv", ["dicom-etl", verb, *settings, *words])
        capsys.readouterr()
        with _process_restored():
            code = run_command(run)
        said = capsys.readouterr()
        return code, said.out, said.err.removeprefix("dicom-etl: ").removesuffix("\n")

    monkeypatch.setattr(session, "local_session", shared)
    return typed


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What the program logs, configured as the command line does it; all that came to stderr so far."""
    from dicom_etl.core.logs import configure_logging

    heard: list[str] = []

    def so_far() -> str:
        heard.append(capsys.readouterr().err)
        return "".join(heard)

    with _process_restored():
        configure_logging("text")
        yield so_far
