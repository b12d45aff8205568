"""Keep Delta tables equal to what an Azure DICOM service holds."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "open_instance"]

# Loaded when first asked for: the import of this package alone must stay light (tests/unit/test_imports.py).
_PLACES = {"open_instance": "dicom_etl.outputs.dicom_file"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
