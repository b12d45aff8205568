"""What keeps the claim of a run alive."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_etl.run import write_session


class Warm:
    """A JVM that answers each time."""

    def __init__(self) -> None:
        self.answers = 0

    def pulse(self) -> int:
        self.answers += 1
        return self.answers


def beats(progress: Callable[[Any], object], *, overdue: bool) -> bool:
    """Whether the heart beats between two looks, with a JVM that is warm."""
    client = SimpleNamespace(pulse=lambda: 7, overdue=overdue)
    resources = SimpleNamespace(client=client, engine=Warm())
    return progress(resources) != progress(resources)


def twin(resources: Any) -> object:
    """As it was: the JVM counts although an answer is overdue."""
    return resources.client.pulse(), resources.engine.pulse()


@pytest.mark.parametrize(("progress", "caught"), [(write_session._progress, False), (twin, True)])
def test_a_warm_jvm_does_not_keep_the_claim_of_a_run_that_waits_for_an_overdue_answer(
    progress: Callable[[Any], object], caught: bool
) -> None:
    assert beats(progress, overdue=False)
    assert beats(progress, overdue=True) is caught
