"""A loopback address that hands this process's storage tokens to its JVM, as a virtual machine's identity does.

Hadoop's own providers know some of azure-identity's ways, and each by other settings; the protocol of a managed
identity they all speak (design/spark.md: Identity for storage).
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dicom_etl.core.errors import DicomEtlError, ServiceUnavailable
from dicom_etl.remote.identity import STORAGE_SCOPE, Credential, access_token

_LOOPBACK = "127.0.0.1"


@contextmanager
def token_endpoint(credential: Credential) -> Iterator[str]:
    """The address, for as long as the block lasts; a caller that knows its secret path gets a token for the storage."""
    path = f"/{secrets.token_urlsafe(32)}/token"
    server = _Quiet((_LOOPBACK, 0), _handler(credential, path))
    # Its end waits for one turn of its loop.
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="token-endpoint", daemon=True)
    thread.start()
    try:
        yield f"http://{_LOOPBACK}:{server.server_address[1]}{path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Nothing: a JVM that goes away while it is answered is no news, and a traceback would stand on our stderr."""


def _handler(credential: Credential, path: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # The header is what keeps a browser from asking by a link.
            wanted = secrets.compare_digest(self.path.partition("?")[0].encode("latin-1"), path.encode("ascii"))
            if not wanted or self.headers.get("Metadata", "").lower() != "true":
                self._answer(404, {})
                return
            try:
                token = access_token(credential, STORAGE_SCOPE, "the storage")
            except DicomEtlError as error:
                # 400 is not tried again by Hadoop, 503 is.
                self._answer(503 if isinstance(error, ServiceUnavailable) else 400, {"error": type(error).__name__})
                return
            self._answer(
                200,
                {
                    "access_token": token.token,
                    "expires_on": str(token.expires_on),
                    "resource": STORAGE_SCOPE.removesuffix(".default"),
                    "token_type": "Bearer",
                },
            )

        def _answer(self, status: int, document: dict[str, str]) -> None:
            body = json.dumps(document).encode("ascii")
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: the path is a secret."""

    return Handler
