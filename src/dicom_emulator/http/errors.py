"""The refusals of the service: a status and the plain text it answers with.

design/service-protocol.md: Addresses and errors.
"""

from __future__ import annotations


class ServiceError(Exception):
    """A request that the service refuses; `status` is the HTTP code, `text` the body."""

    status = 500

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class BadRequest(ServiceError):
    """400: the request is not well formed, or asks for what is not offered."""

    status = 400


class NotFound(ServiceError):
    """404: nothing here by that name."""

    status = 404


class NotAcceptable(ServiceError):
    """406: no representation that the Accept header allows."""

    status = 406

    def __init__(self, text: str = "The request headers are not acceptable.") -> None:
        super().__init__(text)


class Conflict(ServiceError):
    """409: not now, or not twice."""

    status = 409


class TooLarge(ServiceError):
    """413: more bytes than the service takes."""

    status = 413


class UnsupportedMediaType(ServiceError):
    """415: a body of a type the service does not read."""

    status = 415


class FailedDependency(ServiceError):
    """424: the customer's data lake did not take or give a file."""

    status = 424

    def __init__(self) -> None:
        super().__init__("The external data store operation failed.")


class Unavailable(ServiceError):
    """503: the service cannot answer; the cause is hidden."""

    status = 503

    def __init__(self) -> None:
        super().__init__(
            "The server is currently unable to receive requests. Please retry your request. "
            "If the issue persists, please contact support."
        )


class InvalidParameter(BadRequest):
    """400 for a query parameter; `name` as the service spells the bound property, maybe empty."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"The query parameter '{name}' is invalid. {detail}")


class UnsupportedVersion(Exception):
    """A version segment that the service does not serve; answered with a JSON object, not text."""


class InstanceExists(Exception):
    """The key is live already (failure code 45070)."""


class InstancePending(Exception):
    """The key is reserved by a store that has not finished (failure code 45071)."""
