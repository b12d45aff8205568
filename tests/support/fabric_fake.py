"""Fabric's shortcuts API on a loopback socket, as its reference describes it; what it does not say is marked (G).

It checks the token, the path, the policy and the body of each request, and keeps shortcuts and real tables apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

WORKSPACE = "cfafbeb1-8037-4d0c-896e-a46fb27ff229"
LAKEHOUSE = "25bac802-080d-4f73-8a42-1b406eb1fceb"
CONNECTION = "91324db9-8dc4-4730-a1e5-bafabf1fb91e"
TOKEN = "token-of-the-tests"
CANARY = "CANARY^PATIENT"
POLICIES = {"Abort", "GenerateUniqueName", "CreateOrOverwrite", "OverwriteOnly"}


@dataclass
class Scripted:
    """An answer out of the row; with ``late`` the request has its effect all the same."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    late: bool = False


@dataclass
class FabricFake:
    """One workspace with one lakehouse. ``tables`` are real ones, by place; ``seen`` is (method, policy) of requests.

    ``script`` is played before anything else, one answer a request. ``as_fabric`` spells targets otherwise than they
    were sent, as the service may.
    """

    shortcuts: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)
    script: list[Scripted] = field(default_factory=list)
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    page_size: int = 100
    as_fabric: bool = False
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    url: str = ""

    @property
    def posts(self) -> list[str | None]:
        return [policy for method, policy in self.seen if method == "POST"]

    def answer(self, method: str, target: str, headers: Any, content: bytes) -> Scripted:
        address = urlsplit(target)
        query = dict(parse_qsl(address.query, strict_parsing=bool(address.query)))
        self.seen.append((method, query.get("shortcutConflictPolicy")))
        scripted = self.script.pop(0) if self.script else None
        if scripted is not None and not scripted.late:
            return scripted
        real = self._real(method, address.path, query, headers, content)
        return scripted or real

    def _real(self, method: str, path: str, query: dict[str, str], headers: Any, content: bytes) -> Scripted:
        if headers.get("authorization") not in {f"Bearer {token}" for token in self.tokens}:
            return error(401, "TokenExpired")
        if path != f"/v1/workspaces/{WORKSPACE}/items/{LAKEHOUSE}/shortcuts":
            return error(404, "ItemNotFound")
        if method == "GET":
            return self._list(query)
        if method == "POST" and headers.get("content-type") == "application/json":
            return self._make(query, json.loads(content))
        return error(405, "MethodNotAllowed")

    def _list(self, query: dict[str, str]) -> Scripted:
        start = 0
        if "continuationToken" in query:
            # Base64 as Fabric's: with a character that must be encoded in a URL.
            if not query["continuationToken"].endswith("=="):
                return error(400, "InvalidContinuationToken")
            start = int(query["continuationToken"].removesuffix("=="))
        documents = list(self.shortcuts.values())
        page: dict[str, Any] = {"value": documents[start : start + self.page_size]}
        if start + self.page_size < len(documents):
            token = quote(f"{start + self.page_size}==", safe="")
            elsewhere = f"http://127.0.0.1:1/v1/?continuationToken={token}"
            page |= {"continuationToken": token, "continuationUri": elsewhere}
        return Scripted(200, {}, json.dumps(page).encode())

    def _make(self, query: dict[str, str], body: dict[str, Any]) -> Scripted:
        policy = query.get("shortcutConflictPolicy", "Abort")
        if set(query) - {"shortcutConflictPolicy"} or policy not in POLICIES or not _well_formed(body):
            return error(400, "InvalidInput")
        self.bodies.append(body)
        place = f"{body['path']}/{body['name']}"
        there = place in self.shortcuts
        if policy == "Abort" and (there or place in self.tables):
            return error(409, "EntityConflict")
        if policy == "OverwriteOnly" and not there:  # (G)
            return error(409, "EntityConflict")
        self.tables.discard(place)  # (G) the worst that CreateOrOverwrite could do to a table
        self.shortcuts[place] = self._kept(body)
        return Scripted(200 if there else 201, {}, json.dumps(body).encode())

    def _kept(self, body: dict[str, Any]) -> dict[str, Any]:
        adls = dict(body["target"]["adlsGen2"])
        if self.as_fabric:  # (G)
            adls = {"location": adls["location"] + "/", "subpath": adls["subpath"].strip("/") + "/",
                    "connectionId": adls["connectionId"].upper()}  # fmt: skip
        path = "/" + body["path"] if self.as_fabric else body["path"]
        return {"path": path, "name": body["name"], "target": {"type": "AdlsGen2", "adlsGen2": adls}}


def error(status: int, code: str = "UnknownError", **headers: str) -> Scripted:
    """Fabric's error; its message quotes what a patient is called."""
    body = {"requestId": "1", "errorCode": code, "message": f"about {CANARY}", "moreDetails": [{"message": CANARY}]}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Scripted(status, named, json.dumps(body).encode())


def _well_formed(body: dict[str, Any]) -> bool:
    if set(body) != {"path", "name", "target"} or set(body["target"]) != {"adlsGen2"}:
        return False
    adls = body["target"]["adlsGen2"]
    return (
        set(adls) == {"location", "subpath", "connectionId"}
        and body["path"].split("/")[0] in ("Tables", "Files")
        and urlsplit(adls["location"]).scheme == "https"
        and adls["location"].endswith(".dfs.core.windows.net")
        and adls["subpath"].startswith("/")
    )


@contextmanager
def fabric_fake(**options: Any) -> Iterator[FabricFake]:
    """The fake, listening until the end of the block."""
    fake = FabricFake(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet: apart, each answer waits 40 ms for the client's acknowledgement.
        wbufsize = -1

        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            given = fake.answer(self.command, self.path, self.headers, content)
            self.send_response(given.status)
            for name, value in ({"Content-Type": "application/json"} | given.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(given.body)))
            self.end_headers()
            self.wfile.write(given.body)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Nothing on the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
