"""Streams over HTTP from a real server that fails in every way, and cameras that are not there."""

from __future__ import annotations

import base64
import http.server
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_edge.errors import InputError, MachineError
from ndp_edge.runtime.cameras import CvCamera
from ndp_edge.runtime.opening import open_source, redact
from ndp_edge.runtime.reconnecting import Backoff, LostError
from ndp_edge.runtime.sources import Captured, Source

FAST = Backoff(0.001, 0.01)


def levels(got: Sequence[Captured]) -> list[int | None]:
    return [None if one.frame is None else int(one.frame.image[0, 0, 0]) for one in got]


PICTURE = b"--%s\r\nContent-Type: image/jpeg\r\n%s\r\n%s\r\n"


def jpeg(level: int, height: int = 48, width: int = 64) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width), level, np.uint8))[1].tobytes()


class Server:
    """Each connection is answered by the next script: bytes are one part, a number a pause."""

    def __init__(self) -> None:
        self.scripts: list[list[bytes | float]] = []
        self.kind = "multipart/x-mixed-replace; boundary=cut"
        self.length = True
        self.asked: list[str | None] = []
        self.secret: str | None = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                outer.answer(self)

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None: ...  # hung up on

        self.server: socketserver.BaseServer = Quiet(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/live"
        poll = {"poll_interval": 0.02}
        threading.Thread(target=self.server.serve_forever, kwargs=poll, daemon=True).start()

    def answer(self, to: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(to.headers["Authorization"])
        if self.secret is not None and self.asked[-1] != self.secret:
            to.send_response(401)
            to.send_header("WWW-Authenticate", 'Basic realm="line"')
            to.end_headers()
            return
        if not self.scripts:
            to.send_error(503)
            return
        script = self.scripts.pop(0)
        to.send_response(200)
        to.send_header("Content-Type", self.kind)
        to.end_headers()
        for item in script:
            if isinstance(item, float):
                time.sleep(item)
                continue
            length = b"Content-Length: %d\r\n" % len(item) if self.length else b""
            to.wfile.write(PICTURE % (b"cut", length, item))
        if not self.length:
            to.wfile.write(b"--cut--\r\n")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.server.shutdown()
    server.server.server_close()


Open = Callable[..., Source]


@pytest.fixture
def opened(server: Server) -> Iterator[Open]:
    """Opens the server's stream; the first connection, of the check, gets one picture."""
    sources: list[Any] = []

    def open_it(*scripts: list[bytes | float], url: str | None = None, **options: Any) -> Source:
        server.scripts = [[jpeg(0)], *scripts]
        source: Any = open_source(url or server.url, stall_seconds=0.5, **options)
        source._backoff = FAST
        sources.append(source)
        return source

    yield open_it
    for source in sources:
        source.close()


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "boundaries only"])
def test_mjpeg_that_stops_stalls_sends_garbage_and_changes_size(
    server: Server, opened: Open, length: bool
) -> None:
    server.length = length
    source: Any = opened(
        [jpeg(10), jpeg(20)],  # stops
        [jpeg(30), 0.9],  # stalls
        [jpeg(40), b"\x00garbage\n--cu" * 9, jpeg(50)[:200], jpeg(60)],
        [jpeg(70), jpeg(80, 32, 96)],  # a new size within one connection
        limit=9,
    )
    got = list(source)
    assert [None if level is None else round(level, -1) for level in levels(got)] == [
        10, 20, 30, 40, None, None, 60, 70, 80,
    ]  # fmt: skip
    assert [one.name for one in got] == [f"{number:06}" for number in range(9)]
    assert source.reconnects == 3
    assert all("cannot be decoded" in str(one.error) for one in got[4:6])
    assert got[-2].frame is not None and got[-2].frame.image.shape == (48, 64, 3)
    assert got[-1].frame is not None and got[-1].frame.image.shape == (32, 96, 3)


def test_a_server_that_is_down_for_a_while(server: Server, opened: Open) -> None:
    source: Any = opened([jpeg(10)], limit=2)
    frames = iter(source)
    assert levels([next(frames)])[0] == 10
    threading.Timer(0.3, lambda: server.scripts.append([jpeg(20)])).start()
    assert levels([next(frames)])[0] == 20
    assert source.reconnects == 1
    assert len(server.asked) > 3  # refused in between, and asked again


def test_noise_instead_of_parts_is_a_loss(server: Server, opened: Open) -> None:
    source: Any = opened([jpeg(10)], limit=3)
    server.kind = "multipart/x-mixed-replace; boundary=other"
    frames = iter(source)
    time.sleep(0.05)
    server.scripts = [[b"x" * 5000]] * 3
    threading.Timer(
        0.3, lambda: setattr(server, "kind", server.kind.replace("other", "cut"))
    ).start()
    threading.Timer(0.4, lambda: server.scripts.append([jpeg(20)])).start()
    assert levels([next(frames)])[0] in (10, 20)


def test_a_password_is_used_and_not_told(server: Server, opened: Open) -> None:
    url = f"http://me:se%40cret@127.0.0.1:{server.port}/live"
    server.secret = f"Basic {base64.b64encode(b'me:se@cret').decode()}"
    source: Any = opened([jpeg(20)], url=url, limit=1)
    assert levels(list(source)) == [20]
    server.scripts = []
    for wrong, why in ((url, "503"), (url.replace("cret", "crot"), "401")):
        with pytest.raises(InputError, match=rf"http://me:\*\*\*@127.*answers {why}") as error:
            open_source(wrong, stall_seconds=0.5)
        assert "se%40" not in str(error.value)
    assert redact("gst:rtspsrc location=rtsp://a:b@c/1 ! appsink") == (
        "gst:rtspsrc location=rtsp://a:***@c/1 ! appsink"
    )
    assert redact("rtsp://me:p@ss@host/x") == "rtsp://me:***@host/x"
    assert redact("rtsp://c:554/1@2") == "rtsp://c:554/1@2"


def test_opencv_reads_other_streams(server: Server) -> None:
    """The way of rtsp:// and of films over HTTP; here it gets the same MJPEG."""
    shown = [10 * number for number in range(25)]
    server.scripts = [[item for level in shown for item in (jpeg(level), 0.01)]]
    camera = CvCamera(server.url, stall_seconds=2)
    found = []
    with pytest.raises(LostError, match="ended or broke"):
        while True:
            camera.wait()
            raw = camera.take()
            assert raw is not None and raw.shape == (48, 64, 3)
            found.append(round(int(raw[0, 0, 0]), -1))
    camera.close()
    assert found == shown


@pytest.mark.parametrize(
    ("spec", "kind", "why"),
    [
        ("http://127.0.0.1:9/live", InputError, "cannot be opened"),
        ("rtsp://127.0.0.1:9/live", InputError, "cannot be opened"),
        ("v4l2:77", InputError, "no camera at /dev/video77; there is"),
        ("/dev/video77", InputError, "no camera at /dev/video77"),
        ("genicam:/none.cti", InputError, "no GenTL producer"),
    ],
)
def test_what_is_not_there(spec: str, kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why):
        open_source(spec, stall_seconds=0.5)


def test_gstreamer_that_this_opencv_lacks() -> None:
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(MachineError, match="gst: GStreamer pipelines need an OpenCV built with"):
        open_source("gst:videotestsrc ! appsink")
