"""The threshold through the monitor's door: previews, the audit line, who may turn it."""

from __future__ import annotations

import json
from types import SimpleNamespace as Kit
from typing import Any

import numpy as np
import pytest


def test_a_preview_counts_what_would_change(kit: Kit, line: Any) -> None:
    line.feed(*(kit.seen(score=score) for score in (0.1, 0.3, 0.5, 0.51, 0.7, None)))
    told = json.loads(line.get("/preview.json?threshold=0.5"))
    assert (told["frames"], told["now"]) == (5, 2)
    assert (told["then"], told["more"], told["fewer"]) == (2, 0, 0)
    told = json.loads(line.get("/preview.json?threshold=0.3"))
    assert (told["now"], told["then"], told["more"], told["fewer"]) == (2, 3, 1, 0)
    told = json.loads(line.get("/preview.json?threshold=0.6"))
    assert (told["then"], told["more"], told["fewer"]) == (1, 0, 1)
    assert told["baseline_then"] == told["baseline_now"] == 0
    assert json.loads(line.get("/preview.json?threshold=0.2"))["baseline_then"] == pytest.approx(
        np.mean(kit.good_scores() > 0.2), abs=0.02
    )
    assert line.control.threshold == 0.5


@pytest.mark.parametrize("query", ["", "threshold=", "threshold=x", "threshold=nan", "threshold=2",
                                   "threshold=0.1&threshold=0.2", "a=1&b=2&c=3&d=4&e=5",
                                   "threshold=1e999", "threshold=-0.1"])  # fmt: skip
def test_previews_of_nothing(line: Any, query: str) -> None:
    assert line.ask("GET", f"/preview.json?{query}")[0] == 400


def test_turning_the_threshold_leaves_an_audit_line(kit: Kit, line: Any) -> None:
    own = f"http://127.0.0.1:{line.server.port}"
    status, text = line.post({"threshold": 0.25, "from": 0.5, "who": " An\nna\u202e "}, Origin=own)
    assert (status, json.loads(text)) == (200, {"threshold": 0.25})
    line.feed(kit.seen(score=0.3, threshold=line.control.threshold))
    (entry,) = line.audit
    assert {key: entry[key] for key in ("audit", "from", "to", "who")} == {
        "audit": "threshold",
        "from": 0.5,
        "to": 0.25,
        "who": "Anna (127.0.0.1)",
    }
    state = line.state()
    assert state["threshold"] == 0.25
    assert state["shipped"] == 0.5
    assert [turn["who"] for turn in state["turns"]] == ["Anna (127.0.0.1)"]


def test_two_people_at_once_do_not_overwrite_each_other(line: Any) -> None:
    assert line.post({"threshold": 0.4, "from": 0.5, "who": "A"})[0] == 200
    status, text = line.post({"threshold": 0.6, "from": 0.5, "who": "B"})
    assert status == 409
    assert "0.4" in text
    assert line.control.threshold == 0.4
    assert line.post({"threshold": 0.6, "who": "B"})[0] == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[0.4]", 400),
        (b"null", 400),
        (b"[" * 2000, 400),
        (b"\xff\xfe", 400),
        ({}, 400),
        ({"threshold": "0.4"}, 400),
        ({"threshold": True}, 400),
        ({"threshold": None}, 400),
        ({"threshold": -0.1}, 400),
        ({"threshold": 1.1}, 400),
        (b'{"threshold": NaN}', 400),
        (b'{"threshold": 1e999}', 400),
        (b'{"threshold": 1' + b"0" * 400 + b"}", 400),
        ({"threshold": 0.4, "who": 7}, 400),
        ({"threshold": 0.4, "from": "0.5"}, 400),
        ({"threshold": 0.4, "who": "x" * 3000}, 413),
    ],
)
def test_bad_posts_change_nothing(line: Any, body: Any, status: int) -> None:
    assert line.post(body)[0] == status
    assert line.control.threshold == 0.5
    assert line.control.read()[1] == []
    assert line.state()["turns"] == []


OWN = "http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://127.0.0.1.evil.example:{port}"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site", "Origin": OWN}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:{port}"}, 421),
        ({"Host": None}, 421),
        ({"Host": "["}, 421),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content_Type": None}, 415),
        ({"Content_Length": None, "Transfer_Encoding": "chunked"}, 411),
        ({"Content_Length": "-1"}, 411),
        ({"Content_Length": "99999999"}, 413),
        ({"Content_Length": "9" * 50}, 411),
        ({"Origin": OWN, "Sec_Fetch_Site": "same-origin"}, 200),
        ({"Host": "LocalHost:{port}", "Origin": "http://localhost:{port}"}, 200),
        ({"Host": "[::1]:{port}", "Origin": "http://[::1]:{port}"}, 200),
        ({"Content_Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_who_may_turn_the_threshold(line: Any, headers: dict[str, str | None], status: int) -> None:
    port = line.server.port
    given = {k: None if v is None else v.replace("{port}", str(port)) for k, v in headers.items()}
    assert line.post({"threshold": 0.4, "who": "x"}, **given)[0] == status
    assert line.control.threshold == (0.4 if status == 200 else 0.5)


def test_another_site_cannot_read_either(line: Any) -> None:
    for path in ("/", "/state.json", "/metrics"):
        status, headers, body = line.ask("GET", path, Host="evil.example")
        assert status == 421
        assert b"ndp" not in body
        assert "Access-Control-Allow-Origin" not in headers


def test_posts_elsewhere_and_other_methods(line: Any) -> None:
    assert line.post({"threshold": 0.4}, path="/state.json")[0] == 404
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
        assert line.ask(method, "/threshold")[0] == 501


def test_read_only(kit: Kit) -> None:
    line = kit.Line(read_only=True)
    try:
        assert line.post({"threshold": 0.4, "who": "x"}) == (403, "this monitor is read-only")
        assert line.state()["read_only"]
        assert line.control.threshold == 0.5
    finally:
        line.close()
