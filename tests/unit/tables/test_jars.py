"""Spark's jars: which they are, that each is checked, and that nothing is half installed."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from dicom_etl.core.errors import ConfigurationError, StorageError
from dicom_etl.tables.engine import jars
from dicom_etl.tables.engine.jars import Jar, install_jars


def jar(artifact: str, content: bytes) -> Jar:
    return Jar("org.example.group", artifact, "1.0", hashlib.sha256(content).hexdigest())


TWO = (jar("one", b"first"), jar("two", b"second"))


def offered(folder: Path, **contents: bytes) -> str:
    """A folder with jars of these contents."""
    folder.mkdir()
    for artifact, content in contents.items():
        (folder / f"{artifact}-1.0.jar").write_bytes(content)
    return str(folder)


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a Maven repository on loopback, and the folder of the jars' group in it."""
    group = tmp_path / "repository" / "org" / "example" / "group"
    group.mkdir(parents=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = partial(Quiet, directory=str(tmp_path / "repository"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", group
        server.shutdown()


def test_the_jars_of_the_environment_are_those_we_know() -> None:
    """Three of them, by their digests; Spark gets them on its class path."""
    assert [one.path for one in jars.JARS] == [
        "io/delta/delta-spark_4.2_2.13/4.4.0/delta-spark_4.2_2.13-4.4.0.jar",
        "io/delta/delta-storage/4.4.0/delta-storage-4.4.0.jar",
        "org/apache/hadoop/hadoop-azure/3.5.0/hadoop-azure-3.5.0.jar",
    ]
    found = jars.installed_jars()
    assert [file.name for file in found] == [one.name for one in jars.JARS]
    assert [one.is_at(file) for one, file in zip(jars.JARS, found, strict=True)] == [True] * 3
    assert jars.jar_settings() == {"spark.driver.extraClassPath": ":".join(map(str, found))}


def test_jars_come_from_a_folder(tmp_path: Path) -> None:
    """Those that are missing or damaged; the others are not asked for."""
    source = offered(tmp_path / "usb", one=b"first", two=b"second")
    install_jars(tmp_path / "jars", source, TWO)
    assert held(tmp_path / "jars") == {"one-1.0.jar": b"first", "two-1.0.jar": b"second"}
    (tmp_path / "usb" / "one-1.0.jar").unlink()
    (tmp_path / "jars" / "two-1.0.jar").write_bytes(b"sec")
    install_jars(tmp_path / "jars", source, TWO)
    assert held(tmp_path / "jars") == {"one-1.0.jar": b"first", "two-1.0.jar": b"second"}
    install_jars(tmp_path / "jars", str(tmp_path / "no such folder"), TWO)


def test_jars_come_from_a_maven_repository(tmp_path: Path, repository: tuple[str, Path]) -> None:
    address, group = repository
    for artifact, content in (("one", b"first"), ("two", b"second")):
        (group / artifact).mkdir()
        offered(group / artifact / "1.0", **{artifact: content})
    install_jars(tmp_path / "jars", address, TWO)
    assert held(tmp_path / "jars") == {"one-1.0.jar": b"first", "two-1.0.jar": b"second"}


@pytest.mark.parametrize("contents", [{"one": b"first"}, {"one": b"first", "two": b"another"}])
def test_a_missing_or_wrong_jar_installs_nothing(tmp_path: Path, contents: dict[str, bytes]) -> None:
    """One line with its name and the SHA-256 that was expected, 78; also the good one is not there."""
    source = offered(tmp_path / "usb", **contents)
    with pytest.raises(ConfigurationError) as caught:
        install_jars(tmp_path / "jars", source, TWO)
    said = str(caught.value)
    assert "\n" not in said
    assert "two-1.0.jar" in said
    assert TWO[1].sha256 in said
    assert source in said
    assert held(tmp_path / "jars") == {}


def test_a_repository_that_lacks_a_jar_or_does_not_answer_is_named(
    tmp_path: Path, repository: tuple[str, Path]
) -> None:
    """78, with the address that was asked, and the way without a network."""
    with pytest.raises(ConfigurationError, match=r"one-1\.0\.jar .*http://127\.0\.0\.1:.*HTTPStatusError.*--from DIR"):
        install_jars(tmp_path / "jars", repository[0], TWO)
    with pytest.raises(ConfigurationError, match=r"one-1\.0\.jar .*ConnectError"):
        install_jars(tmp_path / "jars", "http://127.0.0.1:9/maven2", TWO)
    assert held(tmp_path / "jars") == {}


def test_secrets_in_a_mirrors_address_are_not_shown(tmp_path: Path) -> None:
    """A name and password, or a token in a query, would stand in the log of every set-up that fails."""
    for address in ("http://bob:s3cr3t@127.0.0.1:9/maven2", "http://127.0.0.1:9/maven2?token=s3cr3t"):
        with pytest.raises(ConfigurationError, match=r"http://127\.0\.0\.1:9/maven2") as refused:
            install_jars(tmp_path, address)
        assert "s3cr3t" not in str(refused.value)


def test_spark_resolves_jars_into_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`setup --jars-to jars`: Ivy gets an absolute folder, and takes no other."""
    asked: list[Path] = []

    def resolve(coordinates: Sequence[str], scratch: Path) -> None:
        asked.append(scratch)
        (scratch / "jars").mkdir()
        for one in coordinates:
            group, artifact, version = one.split(":")
            (scratch / "jars" / f"{group}_{artifact}-{version}.jar").write_bytes(b"first")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dicom_etl.tables.engine.jvm.resolve", resolve)
    install_jars(Path("jars"), jars=TWO[:1])
    assert [folder.is_absolute() for folder in asked] == [True]
    assert held(tmp_path / "jars") == {"one-1.0.jar": b"first"}


def test_an_environment_that_cannot_be_written_is_74(tmp_path: Path) -> None:
    (tmp_path / "share").write_text("a file where the folder would be")
    with pytest.raises(StorageError, match="run dicom-etl setup as the user who owns this environment"):
        install_jars(tmp_path / "share" / "jars", offered(tmp_path / "usb", one=b"first"), TWO[:1])


def test_a_start_without_the_jars_fetches_them(tmp_path: Path) -> None:
    """All or none; here from a folder that lacks them, so that the start ends with the reason."""
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "delta-storage-4.4.0.jar").touch()
    assert jars.installed_jars(tmp_path / "jars") == []
    with pytest.raises(ConfigurationError, match=r"delta-spark_4\.2_2\.13-4\.4\.0\.jar"):
        jars.jar_settings(tmp_path / "jars", offered(tmp_path / "usb"))
