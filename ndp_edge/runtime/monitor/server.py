"""The monitor's web server: a few addresses, for a few viewers.

Every connection has a thread of its own and some seconds; the line knows none of them.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import re
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from ndp_edge.console import plain
from ndp_edge.errors import InputError
from ndp_edge.runtime.metrics import Metrics
from ndp_edge.runtime.monitor.door import (
    Refusal,
    check_host,
    check_origin,
    in_range,
    names_of,
    read_turn,
)
from ndp_edge.runtime.monitor.gallery import KINDS
from ndp_edge.runtime.monitor.view import View
from ndp_edge.runtime.observing import Observer

CONNECTIONS = 48
"""Answered at once; more are turned away."""

SECONDS = 10.0
"""A viewer that neither sends nor takes anything for so long is hung up on."""

_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/tools.js": ("tools.js", "text/javascript; charset=utf-8"),
    "/scores.js": ("scores.js", "text/javascript; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_SHOT = re.compile(r"/shot/([0-9a-f]{1,32})/([0-9]{1,12})/([a-z]{1,12})\.jpg")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class MonitorServer(Observer):
    """Serves a view until it is closed.

    Args:
        view: what is shown.
        host, port: where; port 0 takes a free one.
        metrics: served at /metrics where there are any.
        seconds: a viewer silent for so long is hung up on.

    Raises:
        InputError: the port is taken, or the host is none of this machine's.
    """

    pictures = False

    def __init__(
        self,
        view: View,
        host: str,
        port: int,
        metrics: Metrics | None = None,
        *,
        seconds: float = SECONDS,
    ) -> None:
        class Bound(_Handler):
            pass

        page = importlib.resources.files("ndp_edge.runtime.monitor")
        Bound.files = {path: page.joinpath(name).read_bytes() for path, (name, _) in _PAGE.items()}
        Bound.names, Bound.view, Bound.metrics = names_of(host), view, metrics
        Bound.timeout = seconds
        try:
            self._server = _Server(host, port, Bound)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(f"--monitor {port} on {host}: {why}; name another port") from error
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="ndp-edge monitor",
            daemon=True,
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    def close(self) -> None:
        """Stop serving; viewers that are slow are left to themselves."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = CONNECTIONS
    block_on_close = False  # a slow viewer must not hold up the end of the run

    def __init__(self, host: str, port: int, handler: type[_Handler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._room = threading.Semaphore(CONNECTIONS)
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """As the base's, without its look-up of the host's name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread for a connection, while there is room."""
        if not self._room.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread of one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that hung up is no news; anything else is a bug of ours, and told."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One request and its answer, then the connection is closed (HTTP/1.0)."""

    view: View
    files: dict[str, bytes]
    names: set[str]
    metrics: Metrics | None
    server_version, sys_version = "ndp-edge", ""

    def do_GET(self) -> None:
        """The page, what it shows, and metrics."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """The threshold."""
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's word
        """The terminal is the run's."""

    def _answer(self, method: Callable[[str, str], None]) -> None:
        try:
            check_host(self.headers, self.names)
            path, _, query = self.path.partition("?")
            method(path, query)
        except Refusal as refusal:
            self._send(refusal.status, str(refusal).encode(), "text/plain; charset=utf-8")
            if self.command == "POST":
                self._drain()

    def _drain(self) -> None:
        """Take what was sent and not read: closing on top of it would cut off the answer."""
        self.connection.settimeout(0.2)
        with contextlib.suppress(OSError):
            self.rfile.read1(1 << 16)

    def _get(self, path: str, query: str) -> None:
        shot = _SHOT.fullmatch(path)
        if path in self.files:
            self._send(200, self.files[path], _PAGE[path][1])
        elif path == "/state.json":
            self._json(self.view.state())
        elif path == "/preview.json":
            self._json(self.view.preview(_asked(query)))
        elif shot is not None:
            self._shot(shot[1], int(shot[2]), shot[3])
        elif path == "/metrics":
            if self.metrics is None:
                raise Refusal(404, "metrics need: pip install 'ndp-edge[monitor]'")
            self._send(200, self.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")
        elif path == "/favicon.ico":
            self._send(204, b"", "image/x-icon")
        else:
            raise Refusal(404, "there is nothing here; the page is at /")

    def _shot(self, run: str, number: int, kind: str) -> None:
        shot = self.view.gallery.find(number) if run == self.view.run else None
        data = None if shot is None or kind not in KINDS else shot.jpeg(kind)
        if data is None:
            raise Refusal(404, "this picture is not kept any more")
        self._send(200, data, "image/jpeg", cache="private, max-age=3600, immutable")

    def _post(self, path: str, _query: str) -> None:
        if path != "/threshold":
            raise Refusal(404, "there is nothing here; the page is at /")
        if self.view.read_only:
            raise Refusal(403, "this monitor is read-only")
        check_origin(self.headers)
        turn = read_turn(self.headers, self.rfile)
        who = f"{turn.who or 'somebody'} ({self.client_address[0]})"
        try:
            self.view.control.set_threshold(turn.threshold, who, turn.expected)
        except InputError as error:
            raise Refusal(409, str(error)) from error
        self._json({"threshold": self.view.control.threshold})

    def _json(self, value: Any) -> None:
        data = json.dumps(plain(value), allow_nan=False).encode()
        self._send(200, data, "application/json")

    def _send(self, status: int, data: bytes, kind: str, cache: str = "no-store") -> None:
        self.send_response(status)
        told = {"Content-Type": kind, "Content-Length": str(len(data)), "Cache-Control": cache}
        for name, value in {**told, **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _asked(query: str) -> float:
    """The threshold in a query."""
    try:
        (text,) = parse_qs(query, max_num_fields=4).get("threshold", [])
        return in_range(float(text))
    except ValueError as error:
        raise Refusal(400, "threshold: give a number from 0 to 1") from error
