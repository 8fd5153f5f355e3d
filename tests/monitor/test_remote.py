"""Verdicts sent elsewhere: all of them and in order, or counted; the line never waits."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace as Kit
from typing import Any

import pytest

from ndp_edge.errors import InputError
from ndp_edge.runtime.remote import Remote
from ndp_edge.runtime.senders import Mqtt, Webhook

Wait = Callable[[Callable[[], bool]], None]
FAST = (0.01, 0.04)


class Receiver(http.server.ThreadingHTTPServer):
    """Answers what it is told to, and remembers."""

    daemon_threads, block_on_close = True, False

    def __init__(self, port: int = 0, answers: tuple[int, ...] = (), *, hang_up: bool = False):
        self.got: list[Any] = []
        self.headers: list[Any] = []
        self.answers = list(answers)
        self.connections = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = outer.answers.pop(0) if outer.answers else 204
                if status < 300:
                    outer.got.append(json.loads(body))
                    outer.headers.append((self.path, dict(self.headers)))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                if hang_up:  # without a word, as servers do with idle connections
                    self.close_connection = True

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", port), Handler)
        self.port = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with contextlib.closing(Receiver()) as one:
        yield one


def to(url: str, told: list[str] | None = None, **options: Any) -> Remote:
    tell = (lambda _: None) if told is None else told.append
    return Remote("webhook", Webhook(url, 1), pauses=FAST, tell=tell, **options)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_every_line_arrives_in_order_over_one_connection(kit: Kit, receiver: Receiver) -> None:
    remote = to(f"http://me:p%40ss@127.0.0.1:{receiver.port}/line?x=1")
    frames = [kit.seen(f"{index}.png", 0.2 + 0.4 * (index % 2)) for index in range(50)]
    for one in frames:
        remote.verdict(one)
    remote.close()
    assert receiver.got == [one.line for one in frames]
    assert remote.report() == {
        "to": "webhook", "delivered": 50, "refused": 0, "lost": 0, "waiting": 0, "trouble": None,
    }  # fmt: skip
    path, headers = receiver.headers[0]
    assert path == "/line?x=1"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Basic bWU6cEBzcw=="
    assert receiver.connections == 1


def test_rejects_alone(kit: Kit, receiver: Receiver) -> None:
    remote = to(f"http://127.0.0.1:{receiver.port}", rejects=True)
    for index in range(10):
        remote.verdict(kit.seen(f"{index}.png", 0.2 + 0.4 * (index % 2)))
    remote.close()
    assert [line["frame"] for line in receiver.got] == [f"{index}.png" for index in range(1, 10, 2)]


def test_a_receiver_that_closes_idle_connections(kit: Kit) -> None:
    with contextlib.closing(Receiver(hang_up=True)) as receiver:
        told: list[str] = []
        remote = to(f"http://127.0.0.1:{receiver.port}", told)
        for index in range(5):
            remote.verdict(kit.seen(f"{index}.png"))
            time.sleep(0.05)
        remote.close()
        assert [line["frame"] for line in receiver.got] == [f"{index}.png" for index in range(5)]
        assert told == []


def test_one_that_is_down_is_tried_again_until_it_is_back(kit: Kit, wait_for: Wait) -> None:
    port, told = free_port(), []
    remote = to(f"http://127.0.0.1:{port}", told)
    began = time.perf_counter()
    for index in range(100):
        remote.verdict(kit.seen(f"{index}.png"))
    assert time.perf_counter() - began < 0.2, "the line waited"
    wait_for(lambda: remote.report()["trouble"] is not None)
    assert "refused" in remote.report()["trouble"].lower()
    assert remote.report()["waiting"] == 100
    with contextlib.closing(Receiver(port)) as receiver:
        remote.close()
        assert [line["frame"] for line in receiver.got] == [f"{index}.png" for index in range(100)]
    assert remote.report()["lost"] == 0
    assert len(told) == 2, "once down, once up; not once a frame"


def test_what_finds_no_room_is_counted(kit: Kit, wait_for: Wait) -> None:
    told: list[str] = []
    remote = to(f"http://127.0.0.1:{free_port()}", told, room=10, grace=0.1)
    for index in range(100):
        remote.verdict(kit.seen(f"{index}.png"))
    wait_for(lambda: remote.report()["trouble"] is not None)
    report = remote.report()
    assert report["waiting"] <= 11
    assert report["waiting"] + report["lost"] == 100
    began = time.perf_counter()
    remote.close()
    assert time.perf_counter() - began < 1
    assert remote.report()["lost"] == 100
    assert "100 of 100 verdicts were not delivered (100 lost, 0 refused)" in told[-1]


def test_answers_that_mean_later_and_never(kit: Kit) -> None:
    answers = (503, 429, 500, 200, 404, 301, 200)
    with contextlib.closing(Receiver(answers=answers)) as receiver:
        told: list[str] = []
        remote = to(f"http://127.0.0.1:{receiver.port}", told)
        for index in range(4):
            remote.verdict(kit.seen(f"{index}.png"))
        remote.close()
        assert [line["frame"] for line in receiver.got] == ["0.png", "3.png"]
        report = remote.report()
        assert (report["delivered"], report["refused"], report["lost"]) == (2, 2, 0)
        assert "2 of 4" in told[-1]


def test_a_receiver_that_hangs_does_not_hold_up_the_end(kit: Kit) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        remote = Remote(
            "webhook",
            Webhook(f"http://127.0.0.1:{deaf.getsockname()[1]}", 0.6),
            grace=0.2,
            pauses=FAST,
            tell=lambda _: None,
        )
        remote.verdict(kit.seen())
        time.sleep(0.05)
        began = time.perf_counter()
        remote.close()
        assert time.perf_counter() - began < 0.5
        assert remote.report()["lost"] == 1
        time.sleep(0.8)  # the late failure changes nothing
        assert remote.report()["lost"] == 1


def test_one_that_speaks_no_http(kit: Kit) -> None:
    class Babble(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            self.request.sendall(b"220 mail.example ESMTP\r\n")

    server = socketserver.TCPServer(("127.0.0.1", 0), Babble)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        remote = to(f"http://127.0.0.1:{server.server_address[1]}", grace=0.3)
        remote.verdict(kit.seen())
        remote.close()
        assert remote.report()["lost"] == 1
        assert "HTTP" in remote.report()["trouble"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_sender_with_a_bug_loses_its_verdict_and_not_the_thread(kit: Kit) -> None:
    calls: list[bytes] = []

    class Buggy:
        def __call__(self, message: bytes) -> None:
            calls.append(message)
            if len(calls) == 1:
                raise KeyError("a bug")

        def close(self) -> None:
            calls.append(b"closed")

    remote = Remote("webhook", Buggy(), tell=lambda _: None)
    for _ in range(3):
        remote.verdict(kit.seen())
    remote.close()
    remote.close()
    remote.verdict(kit.seen())
    assert len(calls) == 4
    assert calls[-1] == b"closed"
    assert (remote.report()["delivered"], remote.report()["refused"]) == (2, 1)


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://h/", "http://", "http://h:0/", "http://h:99999/", "http://[/", "http://h/a b",
     "http://h/\n", "//h/"],
)  # fmt: skip
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match="--webhook"):
        Webhook(url)


def test_messages_hold_no_password() -> None:
    for spec in ("http://me:secret@h:0/", "me:secret@h:0/t"):
        with pytest.raises(InputError) as caught:
            (Webhook if "://" in spec else Mqtt)(spec)
        assert "secret" not in str(caught.value)
