"""Set-up of Java and of Spark's jars in this environment, done once, as `make setup` does it."""

from __future__ import annotations

import subprocess
import sys

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.tables.engine.jars import installed_jars

# What each module does, run by ``python -m`` in this order. The last one only saves time.
STEPS = {
    "dicom_etl.tables.engine.java": "looking for Java 17 or newer",
    "dicom_etl.tables.engine.jars": "fetching Spark's jars",
    "dicom_etl.commands.setup": "teaching Java to start faster",
}


def prepare() -> None:
    """Set up what a wheel cannot bring; nothing when its jars are there.

    Each step is a process of its own, so that no JVM stays in this one. Raises ConfigurationError when one fails.
    """
    if installed_jars():
        return
    for module, doing in STEPS.items():
        print(f"setup: {doing} ...", flush=True)
        if code := subprocess.run([sys.executable, "-m", module], check=False).returncode:
            raise ConfigurationError(f"set-up ended with {code} while {doing}; see the line above, then run it again")
