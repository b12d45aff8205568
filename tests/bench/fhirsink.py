"""A FHIR server that takes every bundle and keeps nothing: `python -m bench.fhirsink` prints its address."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CAPABILITY = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [{"mode": "server"}]}
EMPTY = {"resourceType": "Bundle", "type": "searchset", "entry": []}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(CAPABILITY)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        entries = []
        for _ in range(body.count(b'"method":"PUT"') + body.count(b'"method":"DELETE"')):
            entries.append({"response": {"status": "200"}})
        for _ in range(body.count(b'"method":"GET"')):
            entries.append({"response": {"status": "200"}, "resource": EMPTY})
        self._answer({"resourceType": "Bundle", "type": "batch-response", "entry": entries})

    def _answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/fhir+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}/fhir\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
