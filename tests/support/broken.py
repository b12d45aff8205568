"""Broken twins: a rule, what breaks it, and the check that must catch it by its own assertion."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Mutant:
    """A rule, the check that must catch its breach, and the breach: ``owner.name`` is replaced by ``broken``.

    ``says`` is how the message of the assertion that must fail begins.
    """

    rule: str
    check: Callable[..., None]
    owner: Any
    name: str
    broken: Any
    says: str


def assert_caught(mutant: Mutant, *given: Any) -> None:
    """With the rule broken its check fails, by the very assertion that is about this rule and by no other error."""
    assert hasattr(mutant.owner, mutant.name)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mutant.owner, mutant.name, mutant.broken)
        with pytest.raises(AssertionError, match=f"^{re.escape(mutant.says)}") as caught:
            mutant.check(*given)
    assert caught.traceback[-1].frame.code.name == mutant.check.__name__


def checks(mutants: list[Mutant]) -> list[Callable[..., None]]:
    """Their checks, each once."""
    return list(dict.fromkeys(mutant.check for mutant in mutants))
