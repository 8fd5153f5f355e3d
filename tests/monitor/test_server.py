"""The monitor through its door: what it shows, who may turn the threshold, and who may not."""

from __future__ import annotations

import json
import socket
import threading
import time
from types import SimpleNamespace as Kit
from typing import Any

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ndp_edge.errors import InputError
from ndp_edge.runtime.monitor.gallery import LAST, REJECTS, SIDE
from ndp_edge.runtime.monitor.server import CONNECTIONS, MonitorServer

HOSTILE = "<img src=x onerror=alert(1)>\"'&</script>\udc80\u202e.png"


def decode(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image)


def test_the_page_and_its_parts(line: Any) -> None:
    page = line.get("/").decode()
    assert "Line monitor" in page
    for path in ("/tools.js", "/scores.js", "/page.js", "/page.css"):
        assert path in page
        assert len(line.get(path)) > 1000
    _, headers, _ = line.ask("GET", "/")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "<script>" not in page
    assert "style=" not in page
    assert "://" not in page + line.get("/page.css").decode()


def test_an_empty_line(line: Any) -> None:
    state = line.state()
    assert (state["frames"], state["last"], state["rejects"]) == (0, [], [])
    assert state["latency_ms"] is None
    assert state["histogram"]["line"] is None
    assert sum(state["histogram"]["baseline"]) == pytest.approx(1, abs=1e-3)
    assert state["threshold"] == state["shipped"] == 0.5
    assert json.loads(line.get("/preview.json?threshold=0.3"))["frames"] == 0


def test_what_is_shown_of_frames(kit: Kit, line: Any) -> None:
    line.feed(kit.seen("a.png", 0.2), kit.seen("b.png", 0.8), kit.seen("c.png", None))
    line.recent.dropped("d.png", 0.0, "queue full")
    for number in (2, 3):
        line.shown(number)
    state = line.state()
    assert (state["frames"], state["ok"], state["reject"], state["not_judged"]) == (3, 1, 2, 1)
    assert (state["dropped"], state["drops"]) == (1, {"queue full": 1})
    assert state["recent"] == {"n": 3, "reject": 2}
    assert (state["in_a_row"], state["ticks"]) == (2, "orr")
    assert state["latency_ms"]["p50"] == 22.5
    assert [shot["frame"] for shot in state["rejects"]] == ["c.png", "b.png"]
    assert [shot["pictures"] for shot in state["rejects"]] == [[], ["photo", "marked", "heat"]]
    assert state["last"][0]["frame"] == "c.png"
    assert state["last"][0]["error"] == "the file is cut short"
    for kind in ("photo", "marked", "heat"):
        image = decode(line.get(f"/shot/{state['run']}/2/{kind}.jpg"))
        assert image.shape[0] == image.shape[1] >= 64
        assert (np.ptp(image) > 50) == (kind != "photo")


def test_the_histogram_keeps_its_axis_and_loses_nothing(kit: Kit, line: Any) -> None:
    line.feed(*(kit.seen(score=float(score)) for score in (0, 0.2, 0.2, 0.55, 1)))
    shown = line.state()["histogram"]
    assert shown["top"] == 1
    assert shown["n"] == 5
    assert sum(shown["line"]) == pytest.approx(1)
    assert shown["line"][0] == shown["line"][-1] == 0.2


def test_large_frames_are_kept_small_and_small_defects_seen(kit: Kit, line: Any) -> None:
    line.feed(kit.seen("big.png", 0.9, shape=(1913, 2624)))
    line.shown(1)
    shot = line.gallery.find(1)
    assert shot.image.shape[:2] == shot.smoothed.shape
    assert max(shot.smoothed.shape) <= SIDE
    assert shot.smoothed.max() == np.float32(0.9)
    assert decode(shot.jpeg("marked")).shape[1] >= 400
    assert line.state()["rejects"][0]["size"] == [438, 319]


def test_a_frame_shrunk_for_the_net_is_shown_at_its_map(kit: Kit, line: Any) -> None:
    one = kit.seen("square.png", 0.9)
    wide = np.zeros((1024, 1024, 3), np.uint8)
    line.feed(type(one)(one.line, wide, one.smoothed))
    line.shown(1)
    assert line.gallery.find(1).image.shape == (64, 64, 3)
    assert decode(line.gallery.find(1).jpeg("marked")).shape == (128, 128, 3)


def test_the_strips_are_bounded(kit: Kit, line: Any) -> None:
    for index in range(2 * REJECTS):
        line.feed(kit.seen(f"{index}.png", 0.9))
        line.shown(index + 1)
    state = line.state()
    assert len(state["last"]) == LAST
    assert [shot["frame"] for shot in state["rejects"]] == [
        f"{index}.png" for index in range(2 * REJECTS - 1, REJECTS - 1, -1)
    ]
    status, _, text = line.ask("GET", f"/shot/{state['run']}/1/heat.jpg")
    assert (status, text) == (404, b"this picture is not kept any more")


def test_a_storm_of_rejects_does_not_pile_up(kit: Kit, line: Any) -> None:
    big = kit.seen("big.png", 0.9, shape=(1913, 2624))
    began = time.perf_counter()
    for _ in range(300):
        line.gallery.verdict(big)
    assert time.perf_counter() - began < 0.5
    line.shown(300)
    assert line.gallery.find(300) is not None


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/../page.html",
        "/page.html",
        "/%2e%2e/server.py",
        "/shot/{run}/99/heat.jpg",
        "/shot/{run}/1/other.jpg",
        "/shot/0/1/heat.jpg",
        "/shot/{run}/" + "9" * 30 + "/heat.jpg",
        "/shot/{run}/-1/heat.jpg",
        "/threshold",
    ],
)
def test_addresses_that_are_none(kit: Kit, line: Any, path: str) -> None:
    line.feed(kit.seen(score=0.9))
    line.shown(1)
    status, headers, _ = line.ask("GET", path.format(run=line.view.run))
    assert status == 404
    assert headers["Content-Type"].startswith("text/plain")
    assert "Content-Security-Policy" in headers


def test_hostile_names_stay_data(kit: Kit, line: Any) -> None:
    line.feed(kit.seen(HOSTILE, 0.9))
    line.shown(1)
    _, headers, body = line.ask("GET", "/state.json")
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["rejects"][0]["frame"] == HOSTILE
    assert HOSTILE.encode("utf-8", "surrogatepass") not in body
    body.decode("ascii")


def test_without_a_baseline_the_page_says_so(kit: Kit) -> None:
    line = kit.Line(baseline=None)
    try:
        state = line.state()
        assert state["histogram"]["baseline"] is None
        assert state["drift"]["baseline"] is None
        assert json.loads(line.get("/preview.json?threshold=0.1"))["baseline_then"] is None
    finally:
        line.close()


def test_metrics_are_what_prometheus_reads(kit: Kit, line: Any) -> None:
    line.feed(*(kit.seen(score=float(score)) for score in kit.good_scores(250)))
    line.feed(kit.seen(score=0.9, late=True), kit.seen(score=None))
    for observer in line.observers:
        observer.dropped("x.png", 0.0, "deadline")
        observer.gauges({"waiting": 3, "frames_in_flight": 5, "resident_bytes": 1e8})
    text = line.get("/metrics").decode()
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["ndp_edge_frames_total", "ok"] == 250
    assert found["ndp_edge_frames_total", "reject"] == 2
    assert found["ndp_edge_not_judged_total",] == found["ndp_edge_late_total",] == 1
    assert found["ndp_edge_dropped_total", "deadline"] == 1
    assert found["ndp_edge_latency_seconds_count", "total"] == 251
    assert found["ndp_edge_latency_seconds_sum", "infer"] == pytest.approx(251 * 0.02)
    assert found["ndp_edge_queue_frames", "waiting"] == 3
    assert found["ndp_edge_frames_in_flight",] == 5
    assert found["ndp_edge_resident_bytes",] == 1e8
    assert found["ndp_edge_threshold",] == 0.5
    assert found["ndp_edge_rejects_in_a_row",] == 2
    assert found["ndp_edge_baseline",] == 1
    assert found["ndp_edge_drift_alarm",] == 0
    assert found["ndp_edge_drift_windows_total",] == 1
    line_median = found["ndp_edge_score_quantile", "0.5", "line"]
    assert line_median == pytest.approx(0.2, abs=0.01)
    assert found["ndp_edge_score_quantile", "0.5", "baseline"] == pytest.approx(
        np.median(kit.good_scores()), abs=1e-3
    )


def test_slow_viewers_do_not_hold_up_line_or_others(kit: Kit) -> None:
    """As many viewers as there is room for, none of whom takes or says anything."""
    line = kit.Line(seconds=1.0)
    stuck = []
    try:
        for _ in range(CONNECTIONS + 4):
            stuck.append(socket.create_connection(("127.0.0.1", line.server.port)))
        stuck[0].sendall(b"GET / HTTP/1.1\r\nHost: loc")
        began = time.perf_counter()
        line.feed(*(kit.seen(f"{index}.png", 0.9) for index in range(200)))
        assert time.perf_counter() - began < 0.5
        time.sleep(1.5)  # they are hung up on, and there is room again
        assert line.state()["frames"] == 200
        assert threading.active_count() < 20
    finally:
        for one in stuck:
            one.close()
        began = time.perf_counter()
        line.close()
    assert time.perf_counter() - began < 2


def test_many_viewers_see_the_same(kit: Kit, line: Any) -> None:
    line.feed(*(kit.seen(f"{index}.png", 0.9) for index in range(4)))
    line.shown(4)
    states: list[Any] = []
    viewers = [threading.Thread(target=lambda: states.append(line.state())) for _ in range(12)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    assert len(states) == 12
    assert {(state["frames"], state["run"]) for state in states} == {(4, line.view.run)}


def test_a_port_that_is_taken_and_a_host_that_is_none(line: Any) -> None:
    with pytest.raises(InputError, match="name another port"):
        MonitorServer(line.view, "127.0.0.1", line.server.port)
    with pytest.raises(InputError, match="--monitor 0 on"):
        MonitorServer(line.view, "203.0.113.7", 0)


def test_closing_twice_is_once(kit: Kit) -> None:
    line = kit.Line()
    line.close()
    line.close()
    with pytest.raises(OSError, match="refused"):
        line.state()
