"""A line without an engine: verdicts go straight to the observers, as the write stage does."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ndp_edge.runtime.baseline import Baseline, Drift
from ndp_edge.runtime.metrics import Metrics
from ndp_edge.runtime.monitor.gallery import Gallery
from ndp_edge.runtime.monitor.server import MonitorServer
from ndp_edge.runtime.monitor.view import View
from ndp_edge.runtime.observing import Control, Seen
from ndp_edge.runtime.recent import Recent
from ndp_edge.threshold import score_quantiles

THRESHOLD = 0.5
SIZE = 64


def seen(
    name: str = "a.png",
    score: float | None = 0.2,
    threshold: float = THRESHOLD,
    shape: tuple[int, int] | None = (SIZE, SIZE),
    **more: Any,
) -> Seen:
    """A frame with one spot that has the score; no score is a frame that cannot be judged."""
    rejected = score is None or score > threshold
    line = {
        "frame": name,
        "time": round(time.time(), 6),
        "score": score,
        "threshold": threshold,
        "verdict": "reject" if rejected else "ok",
        "defects": [{"box": [1, 2, 3, 4], "area": 12, "peak": score}] if rejected and score else [],
        "latency_ms": {"read": 1.0, "infer": 20.0, "judge": 0.5, "total": 22.5},
        "bundle": "0" * 64,
        **more,
    }
    if shape is None or score is None:
        return Seen({**line, "error": "the file is cut short"}, None, None)
    smoothed = np.zeros(shape, np.float32)
    smoothed[shape[0] // 2, shape[1] // 2] = score
    return Seen(line, np.full((*shape, 3), 90, np.uint8), smoothed)


def good_scores(n: int = 150, seed: int = 0, mean: float = 0.2) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(mean, 0.05, n), 0, 1)


def baseline(n: int = 150) -> Baseline:
    return Baseline(np.array(score_quantiles(good_scores(n))), n)


class Line:
    """Observers and a server, and a client that says what it likes."""

    def __init__(self, **options: Any) -> None:
        server = {key: options.pop(key) for key in ("seconds",) if key in options}
        self.recent, self.gallery = Recent(), Gallery()
        self.drift = Drift(options.pop("baseline", baseline()), tell=lambda _: None)
        self.control = Control(THRESHOLD)
        self.remotes: list[Any] = options.pop("remotes", [])
        self.metrics = Metrics(
            self.recent, self.drift, self.remotes, lambda: self.control.threshold
        )
        self.view = View(
            self.recent,
            self.drift,
            self.gallery,
            self.control,
            THRESHOLD,
            bundle="c0ffee" * 8,
            remotes=self.remotes,
            **options,
        )
        self.server = MonitorServer(self.view, "127.0.0.1", 0, self.metrics, **server)
        self.observers = [self.recent, self.drift, self.metrics, self.gallery]
        self.audit: list[dict[str, Any]] = []

    def feed(self, *frames: Seen) -> None:
        for one in frames:
            self.audit += self.control.read()[1]
            for observer in self.observers:
                observer.verdict(one)

    def shown(self, number: int) -> None:
        """Wait until the gallery has a frame."""
        until = time.monotonic() + 5
        while self.gallery.find(number) is None:
            assert time.monotonic() < until, f"frame {number} does not appear"
            time.sleep(0.01)

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str | None
    ) -> tuple[int, Any, bytes]:
        """Status, headers and body; a header that is None is left out."""
        given = {"Host": f"127.0.0.1:{self.server.port}", **headers}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            if body is not None and "Content_Length" not in given:
                given["Content-Length"] = str(len(body))
            for name, value in given.items():
                if value is not None:
                    connection.putheader(name.replace("_", "-"), value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def get(self, path: str, **headers: str) -> bytes:
        status, _, body = self.ask("GET", path, **headers)
        assert status == 200, (path, status, body)
        return body

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/state.json"))
        return found

    def post(self, body: Any, path: str = "/threshold", **headers: str | None) -> tuple[int, str]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        told = {"Content_Type": "application/json", **headers}
        status, _, text = self.ask("POST", path, data, **told)
        return status, text.decode()

    def close(self) -> None:
        for observer in (self.server, self.gallery, *self.remotes):
            observer.close()


@pytest.fixture
def kit() -> SimpleNamespace:
    """The functions above, for test files that cannot import this one."""
    return SimpleNamespace(
        seen=seen, good_scores=good_scores, baseline=baseline, Line=Line, THRESHOLD=THRESHOLD
    )


@pytest.fixture
def line() -> Iterator[Line]:
    one = Line(source="belt 7")
    try:
        yield one
    finally:
        one.close()


class Chromium:
    """A headless browser, driven through its debugging pipe (file descriptors 3 and 4)."""

    def __init__(self, program: str, profile: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 40) for fd in (ours[0], theirs[1])]
        quiet = os.open(os.devnull, os.O_RDWR)
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
        more = ("--remote-debugging-pipe", "--no-first-run", f"--user-data-dir={profile}")
        self._process = os.posix_spawn(
            program,
            [program, *options, *more, "about:blank"],
            {**os.environ, "HOME": str(profile)},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, quiet, 1),
                (os.POSIX_SPAWN_DUP2, quiet, 2),
                (os.POSIX_SPAWN_DUP2, ends[0], 3),
                (os.POSIX_SPAWN_DUP2, ends[1], 4),
            ],
        )
        for fd in (ours[0], theirs[1], *ends, quiet):
            os.close(fd)
        self._write, self._read = ours[1], theirs[0]
        self._left, self._number = b"", 0
        (page,) = [
            target
            for target in self._call("Target.getTargets", None)["targetInfos"]
            if target["type"] == "page"
        ]
        attach = {"targetId": page["targetId"], "flatten": True}
        self._session = self._call("Target.attachToTarget", None, **attach)["sessionId"]

    def open(self, url: str, width: int, height: int, *, phone: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=url)

    def js(self, code: str) -> Any:
        """The value of an expression in the page."""
        told = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, code: str, seconds: float = 20) -> None:
        """Wait for an expression to be true."""
        end = time.monotonic() + seconds
        while not self.js(f"!!({code})"):
            assert time.monotonic() < end, f"never true: {code}"
            time.sleep(0.05)

    def picture(self) -> bytes:
        """The page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def call(self, method: str, **words: Any) -> dict[str, Any]:
        return self._call(method, self._session, **words)

    def _call(self, method: str, session: str | None, **words: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": words}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._left:
                data = os.read(self._read, 1 << 20)
                assert data, "the browser ended"
                self._left += data
            text, _, self._left = self._left.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self._call("Browser.close", None)
        os.close(self._write)
        os.close(self._read)
        end = time.monotonic() + 10
        while os.waitpid(self._process, os.WNOHANG)[0] == 0:
            if time.monotonic() > end:
                os.kill(self._process, signal.SIGKILL)
            time.sleep(0.05)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A headless Chromium; skips where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium here: apt install chromium")
    one = Chromium(program, tmp_path_factory.mktemp("chromium"))
    try:
        yield one
    finally:
        one.close()


Waiter = Callable[[Callable[[], bool]], None]


@pytest.fixture
def wait_for() -> Waiter:
    """Wait until something is so."""

    def wait(condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < until, "it never came about"
            time.sleep(0.01)

    return wait
