"""Bearer tokens and the roles they stand for (design/service-protocol.md: Tokens and roles)."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass

READER, OWNER, NOBODY = "reader", "owner", "nobody"
"""DICOM Data Reader (read, search, change feed), DICOM Data Owner (all), and an identity without a role."""

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass
class Token:
    """What is known of one token: until when it holds, and for how many more requests; None: no such end."""

    role: str
    expires: int | None = None
    requests_left: int | None = None


class Tokens:
    """The tokens that the service takes; with none ever issued it asks for none. Thread-safe.

    `refused` counts the requests that were answered 401.
    """

    def __init__(self, given: Mapping[str, str] | None = None) -> None:
        self._lock = threading.Lock()
        self._tokens = {text: _token(role) for text, role in (given or {}).items()}
        self._wanted = given is not None
        self.refused = 0

    def issue(self, role: str = OWNER, *, expires: int | None = None, requests: int | None = None) -> str:
        """A new token; from now on every request needs one.

        It ends at `expires` (100 ns since 1970 by the service's clock) or after so many requests, whichever
        comes first. Raises ValueError for an unknown role.
        """
        text = secrets.token_urlsafe(24)
        with self._lock:
            self._tokens[text] = _token(role, expires, requests)
            self._wanted = True
        return text

    def revoke(self, text: str | None = None) -> None:
        """Takes one token back; None: all."""
        with self._lock:
            if text is None:
                self._tokens.clear()
            else:
                self._tokens.pop(text, None)

    def refusal(self, authorization: str | None, method: str, now: int) -> int | None:
        """401 for no token or one that has ended, 403 when its role does not cover the method; None: welcome.

        Each request that is not refused with 401 uses the token up by one.
        """
        with self._lock:
            if not self._wanted:
                return None
            scheme, _, text = (authorization or "").partition(" ")
            token = self._tokens.get(text.strip()) if scheme.lower() == "bearer" else None
            if token is None or not _holds(token, now):
                self.refused += 1
                return 401
            if token.requests_left is not None:
                token.requests_left -= 1
            allowed = token.role == OWNER or (token.role == READER and method in _READING)
            return None if allowed else 403


def _token(role: str, expires: int | None = None, requests: int | None = None) -> Token:
    if role not in (READER, OWNER, NOBODY):
        raise ValueError(f"a role is one of {READER}, {OWNER}, {NOBODY}")
    return Token(role, expires, requests)


def _holds(token: Token, now: int) -> bool:
    return (token.expires is None or now < token.expires) and token.requests_left != 0
