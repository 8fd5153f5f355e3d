"""Verdicts to an MQTT broker: all of them and in order, or counted."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
import socketserver
import threading
from types import SimpleNamespace as Kit
from typing import Any

import pytest

from ndp_edge.errors import InputError, MachineError
from ndp_edge.runtime.remote import Remote
from ndp_edge.runtime.senders import Mqtt

FAST = (0.01, 0.04)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("spec", ["", "host", "host:1883", "host:1883/", "host/a/#", "host/+/b",
                                  "http://host/t", "host:x/t", "/t"])  # fmt: skip
def test_brokers_that_are_none(spec: str) -> None:
    with pytest.raises(InputError, match="--mqtt"):
        Mqtt(spec)


def test_mqtt_without_paho(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MachineError, match=r"pip install 'ndp-edge\[mqtt\]'"):
        Mqtt("host/topic")


class Broker(socketserver.ThreadingTCPServer):
    """As much of MQTT 3.1.1 as a publisher sees: CONNECT, PUBLISH with QoS 1, DISCONNECT."""

    daemon_threads, block_on_close = True, False

    def __init__(self, *, code: int = 0, acknowledge: bool = True) -> None:
        self.got: list[tuple[str, Any]] = []
        self.connects: list[bytes] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while head := self.rfile.read(1):
                    kind, length, shift = head[0] >> 4, 0, 0
                    while True:
                        (byte,) = self.rfile.read(1)
                        length |= (byte & 127) << shift
                        shift += 7
                        if byte < 128:
                            break
                    body = self.rfile.read(length)
                    if kind == 1:
                        outer.connects.append(body)
                        self.wfile.write(bytes((0x20, 2, 0, code)))
                        if code:
                            return
                    elif kind == 3:
                        size = int.from_bytes(body[:2], "big")
                        topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
                        outer.got.append((topic, json.loads(rest[2:])))
                        if acknowledge:
                            self.wfile.write(b"\x40\x02" + rest[:2])
                    elif kind == 14:
                        return

        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def published(kit: Kit, spec: str, n: int = 5, **options: Any) -> Remote:
    remote = Remote("mqtt", Mqtt(spec, 0.5), pauses=FAST, tell=lambda _: None, **options)
    for index in range(n):
        remote.verdict(kit.seen(f"{index}.png"))
    remote.close()
    return remote


def test_mqtt_publishes_every_line_in_order(kit: Kit) -> None:
    with contextlib.closing(Broker()) as broker:
        remote = published(kit, f"me:p%40ss@127.0.0.1:{broker.port}/plant/line%207")
        assert remote.report()["delivered"] == 5
        assert [topic for topic, _ in broker.got] == ["plant/line 7"] * 5
        assert [line["frame"] for _, line in broker.got] == [f"{index}.png" for index in range(5)]
        assert len(broker.connects) == 1
        assert b"p@ss" in broker.connects[0]


@pytest.mark.parametrize("options", [{"code": 5}, {"acknowledge": False}])
def test_a_broker_that_refuses_or_is_silent(kit: Kit, options: dict[str, Any]) -> None:
    with contextlib.closing(Broker(**options)) as broker:
        remote = published(kit, f"127.0.0.1:{broker.port}/t", 2, grace=0.8)
        assert (remote.report()["delivered"], remote.report()["lost"]) == (0, 2)
        assert "broker" in remote.report()["trouble"]


def test_a_broker_that_is_not_there(kit: Kit) -> None:
    remote = published(kit, f"127.0.0.1:{free_port()}/t", 2, grace=0.2)
    assert (remote.report()["delivered"], remote.report()["lost"]) == (0, 2)
    assert "refused" in remote.report()["trouble"].lower()
