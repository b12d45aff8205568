"""Installing HAPI FHIR for `make test-fhir`: one line where Maven or a JDK is lacking, and nothing is half there."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_etl.core.errors import ConfigurationError
from tests.fhir.jars import POM, install, missing


def jdk(folder: Path, script: str) -> Path:
    """A JDK whose javac is this script."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "javac").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "javac").chmod(0o755)
    return folder


def maven(folder: Path, script: str) -> str:
    """A Maven that is this script; its last argument says where the jars go."""
    path = folder / "mvn"
    path.write_text(f'#!/bin/sh\nfor last; do :; done\nto="${{last#-DoutputDirectory=}}"\n{script}\n')
    path.chmod(0o755)
    return str(path)


def test_without_maven_one_line_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="install mvn"):
        install(tmp_path / "hapi", lambda _name: None, lambda: jdk(tmp_path / "jdk", "true"))
    assert missing(tmp_path / "hapi") is not None


def test_without_javac_one_line_says_so(tmp_path: Path) -> None:
    """A runtime alone has none."""
    with pytest.raises(ConfigurationError, match="JDK of 17"):
        install(tmp_path / "hapi", lambda _name: None, lambda: tmp_path)


def test_what_maven_fetched_in_part_is_not_taken(tmp_path: Path) -> None:
    """A failed fetch leaves it missing; the next one makes it whole, and then nothing is fetched or compiled."""
    java, folder = jdk(tmp_path / "jdk", "true"), tmp_path / "hapi"
    failing = maven(tmp_path, 'touch "$to/one.jar"; exit 1')
    with pytest.raises(ConfigurationError, match="Maven cannot fetch"):
        install(folder, lambda _name: failing, lambda: java)
    assert not (folder / "lib").exists()
    whole = maven(tmp_path, 'touch "$to/one.jar" "$to/two.jar"')
    install(folder, lambda _name: whole, lambda: java)
    assert sorted(path.name for path in (folder / "lib").glob("*.jar")) == ["one.jar", "two.jar"]
    assert missing(folder) is None
    install(folder, lambda _name: None, lambda: tmp_path / "no-java")


def test_another_pom_or_source_is_installed_again(tmp_path: Path) -> None:
    """The stamp says of what it was made; without it, or with another, it is missing."""
    java, folder = jdk(tmp_path / "jdk", "true"), tmp_path / "hapi"
    whole = maven(tmp_path, 'touch "$to/one.jar"')
    install(folder, lambda _name: whole, lambda: java)
    for part in ("lib", "classes"):
        stamp = folder / part / ".made-from"
        made_from = stamp.read_text()
        stamp.write_text("of another")
        assert missing(folder) is not None, part
        stamp.write_text(made_from)
    assert missing(folder) is None
    assert "8.8.0" in POM.read_text()
