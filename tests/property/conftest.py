"""What the property tests have to say of a run that passes: seeds and counts, at the end of the session."""

from __future__ import annotations

from collections.abc import Callable

import pytest

TOLD = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Prints a line at the end of the session."""
    return pytestconfig.stash.setdefault(TOLD, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Seeds and counts, also of tests that pass."""
    for line in config.stash.get(TOLD, []):
        terminalreporter.write_line(line)
