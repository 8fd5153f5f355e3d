"""A network camera that fails on cue: multipart JPEG over HTTP on the loopback address."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import numpy as np

from ndp_edge import heat
from ndp_edge.bench.stream_rig import pictures

Script = Callable[["Scene"], Iterator[bytes]]
"""What one connection is sent, JPEG by JPEG; the connection ends with it."""

_PERIOD = 0.1
"""Seconds between frames."""


class Scene:
    """The JPEGs that scripts are made of, and the end of the show."""

    def __init__(self, size: int) -> None:
        shown = pictures(4, 0, size)
        wide = np.concatenate(shown[:2], axis=1)[:, : 3 * size // 2]
        self.frame = heat.encode(shown[0])
        self.wide = heat.encode(np.ascontiguousarray(wide))
        self.over = threading.Event()

    def frames(self, count: int) -> Iterator[bytes]:
        """So many good frames."""
        return (self.frame for _ in range(count))


def endless(scene: Scene) -> Iterator[bytes]:
    """Good frames for ever."""
    while not scene.over.is_set():
        yield scene.frame


def stops(scene: Scene) -> Iterator[bytes]:
    """Good frames, then the connection is closed."""
    yield from scene.frames(12)


def stalls(scene: Scene) -> Iterator[bytes]:
    """Good frames, then silence while the connection stays open."""
    yield from scene.frames(12)
    scene.over.wait()


def garbage(scene: Scene) -> Iterator[bytes]:
    """Torn and senseless pictures between good ones, then good ones for ever."""
    noise = np.random.default_rng(0).bytes(4000)
    for _ in range(4):
        yield from scene.frames(4)
        yield scene.frame[: len(scene.frame) // 2]
        yield noise
        yield b""
    yield from endless(scene)


def resizes(scene: Scene) -> Iterator[bytes]:
    """Wide frames after the first ones, and back."""
    yield from scene.frames(10)
    yield from (scene.wide for _ in range(10))
    yield from endless(scene)


class Camera:
    """Serves one script per connection, the last one again and again; a context manager.

    The first connection is `open_source`'s trial and gets good frames.
    """

    def __init__(self, scripts: Sequence[Script], size: int = 256) -> None:
        self._scripts = [endless, *scripts]
        self._scene = Scene(size)
        self._connections = 0
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera._serve(self)

            def log_message(self, *words: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}/video.mjpg"

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scene.over.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        script = self._scripts[min(self._connections, len(self._scripts) - 1)]
        self._connections += 1
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        try:
            for data in script(self._scene):
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                handler.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(_PERIOD)
        except OSError:  # the client has gone
            pass
        handler.close_connection = True
