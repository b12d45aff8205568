"""The archive of classes: one for each Java and set of jars, and none where there is none."""

from __future__ import annotations

from pathlib import Path

from dicom_etl.tables.engine.class_archive import archive_of, class_data_option


def _java(folder: Path, release: str) -> Path:
    folder.mkdir()
    (folder / "release").write_text(release)
    return folder


def test_each_java_has_an_archive_of_its_own(tmp_path: Path) -> None:
    """An update of Java in the same place gets another one, since it would refuse the old."""
    java = _java(tmp_path / "java", 'JAVA_VERSION="17.0.1"')
    first = archive_of(java, tmp_path)
    assert archive_of(java, tmp_path) == first
    assert archive_of(_java(tmp_path / "other", 'JAVA_VERSION="17.0.1"'), tmp_path) != first
    (java / "release").write_text('JAVA_VERSION="17.0.2"')
    assert archive_of(java, tmp_path) != first


def test_a_jvm_is_told_of_it_only_when_it_is_there(tmp_path: Path) -> None:
    """Without it the JVM starts as always."""
    java = _java(tmp_path / "java", "17")
    assert class_data_option(java, tmp_path) == ""
    archive_of(java, tmp_path).write_bytes(b"classes")
    assert class_data_option(java, tmp_path).split() == [
        "-Xshare:auto", f'-XX:SharedArchiveFile="{archive_of(java, tmp_path)}"',
    ]  # fmt: skip
