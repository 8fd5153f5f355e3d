"""`run` with people and machines watching: the monitor, metrics, a webhook; and what they leave."""

from __future__ import annotations

import http.client
import http.server
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace as Kit
from typing import Any

import numpy as np
import pytest

from ndp_edge import run
from ndp_edge.bundle import Bundle
from ndp_edge.image import write_png
from ndp_edge.threshold import score_quantiles


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(port: int, method: str, path: str, body: Any = None) -> Any:
    """The answer as JSON, or as text; None while nobody is there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        data = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        return json.loads(text) if "json" in answer.headers["Content-Type"] else text
    except OSError:
        return None
    finally:
        connection.close()


@pytest.fixture
def many(kit: Kit, tmp_path: Path) -> Path:
    root = tmp_path / "many"
    root.mkdir()
    for index in range(60):
        write_png(root / f"{index:04}.png", kit.frame(bright=8 * (index % 2)))
    return root


@pytest.fixture
def viewer() -> Any:
    """Runs a function in a thread beside the run, and gives what it returned."""

    def start(look: Callable[[], Any]) -> Callable[[], Any]:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(look()))
        thread.start()

        def result() -> Any:
            thread.join(20)
            assert found, "the viewer failed"
            return found[0]

        return result

    return start


def until(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + 15
    while not (value := look()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return value


def test_the_monitor_turns_the_threshold_of_a_running_line(
    kit: Kit, bundle: Path, many: Path, tmp_path: Path, viewer: Any
) -> None:
    port, out = free_port(), tmp_path / "out"

    def person() -> Any:
        state = until(lambda: (s := ask(port, "GET", "/state.json")) and s["frames"] >= 10 and s)
        turned = ask(port, "POST", "/threshold", {"threshold": 0.9, "who": "Anna"})
        assert turned == {"threshold": 0.9}
        metrics = ask(port, "GET", "/metrics")
        until(lambda: (s := ask(port, "GET", "/state.json")) and s["frames"] >= 40)
        return state, metrics

    seen = viewer(person)
    assert kit.go(bundle, many, out, "--fps", "40", "--monitor", str(port)) == 0
    state, metrics = seen()
    assert (state["source"], state["threshold"], state["shipped"]) == ("many", 0.5, 0.5)
    assert state["bundle"] == Bundle.open(bundle).hash[:12]
    assert re.search(r'ndp_edge_frames_total\{verdict="reject"\} [1-9]', metrics)
    lines = [json.loads(text) for text in (out / "results.jsonl").read_text().splitlines()]
    (place,) = [index for index, line in enumerate(lines) if "audit" in line]
    entry = lines[place]
    assert entry["who"] == "Anna (127.0.0.1)"
    assert (entry["from"], entry["to"]) == (0.5, 0.9)
    assert {line["threshold"] for line in lines[:place]} == {0.5}
    assert {line["threshold"] for line in lines[place + 1 :]} == {0.9}
    assert {line["verdict"] for line in lines[place + 1 :]} == {"ok"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == 60
    assert summary["audit"] == [entry]
    assert summary["drift"]["baseline"] is None


def test_drift_against_the_bundles_baseline(
    kit: Kit, tmp_path: Path, many: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The frames score 60/255; the baseline of the bundle lies elsewhere."""
    quiet = score_quantiles(np.linspace(0.05, 0.15, 100))
    told = {"value": 0.5, "n": 100, "score_quantiles": quiet}
    bundle = kit.make_bundle(tmp_path / "drifted", threshold=told)
    for index in range(60, 460):
        (many / f"{index:04}.png").symlink_to(many / "0000.png")
    out = tmp_path / "out"
    assert kit.go(bundle, many, out, "--metrics-port", "0", "--keep", "none") == 0
    drift = json.loads((out / "summary.json").read_text())["drift"]
    assert (drift["baseline"], drift["windows"], drift["alarm"]) == (100, 2, "shift")
    assert drift["expected"] == pytest.approx(0.1, abs=0.01)
    assert drift["median"] == pytest.approx(60 / 255, abs=1e-3)
    err = capsys.readouterr().err
    assert err.count("scores otherwise than at the build") == 1
    assert re.search(r"metrics: http://127\.0\.0\.1:\d+/metrics", err)


def test_a_webhook_that_is_down_is_counted_and_nothing_waits(
    kit: Kit, bundle: Path, many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    began = time.perf_counter()
    url = f"http://me:secret@127.0.0.1:{free_port()}/"
    assert kit.go(bundle, many, out, "--webhook", url, "--tell", "rejects") == 0
    assert time.perf_counter() - began < 10
    (told,) = json.loads((out / "summary.json").read_text())["told"]
    assert (told["to"], told["delivered"], told["lost"]) == ("webhook", 0, 30)
    err = capsys.readouterr().err
    assert "30 of 30 verdicts were not delivered" in err
    assert "secret" not in err


def test_a_webhook_gets_the_lines_of_the_results(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path
) -> None:
    got: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        assert kit.go(bundle, folder, tmp_path / "out", "--webhook", url) == 0
        server.shutdown()
        thread.join()
    assert got == kit.lines(tmp_path / "out")


def test_a_port_that_is_taken_leaves_old_results_alone(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert kit.go(bundle, folder, out) == 0
    before = (out / "results.jsonl").read_bytes()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert kit.go(bundle, folder, out, "--force", "--monitor", str(port)) == 2
    assert "name another port" in capsys.readouterr().err
    assert (out / "results.jsonl").read_bytes() == before


def test_metrics_without_prometheus(
    kit: Kit,
    bundle: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ndp_edge.runtime import metrics

    monkeypatch.setattr(metrics, "has_prometheus", lambda: False)
    assert kit.go(bundle, folder, tmp_path / "out", "--metrics-port", "0") == 3
    assert "pip install 'ndp-edge[monitor]'" in capsys.readouterr().err
    # The page does without.
    monkeypatch.setattr("ndp_edge.run_watching.has_prometheus", lambda: False)
    assert kit.go(bundle, folder, tmp_path / "out", "--monitor", "0") == 0


def test_a_monitor_for_everybody_warns(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--monitor", "0", "--monitor-host", "0.0.0.0")
    assert kit.go(bundle, folder, tmp_path / "out", *options) == 0
    assert "can turn the threshold" in capsys.readouterr().err
    assert kit.go(bundle, folder, tmp_path / "b", *options, "--monitor-read-only") == 0
    assert "can turn the threshold" not in capsys.readouterr().err


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_ports_that_are_none(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path, port: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main([str(bundle), "--source", str(folder), "--out", "o", "--monitor", port])
    assert ended.value.code == 2
