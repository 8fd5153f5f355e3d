"""The page in a headless Chromium: what a person sees and does, on a panel and on a phone."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace as Kit
from typing import Any

import cv2
import numpy as np
import pytest

HOSTILE = '<img src=x onerror="document.title=1"><b>&amp;\'"</b>' + "long" * 40 + ".png"
DESKTOP, PHONE = (1280, 800), (390, 844)

Wait = Callable[[Callable[[], bool]], None]


def fill(kit: Kit, line: Any, n: int = 60) -> None:
    for index, score in enumerate(kit.good_scores(n)):
        line.feed(kit.seen(f"{index:04}.png", 0.9 if index % 10 == 9 else float(score)))
        if index % 10 == 9:
            line.shown(index + 1)


def text(browser: Any, name: str) -> str:
    found: str = browser.js(f"document.getElementById('{name}').textContent")
    return found


def show(browser: Any, line: Any, size: tuple[int, int] = DESKTOP) -> None:
    browser.open(line.server.url, *size, phone=size == PHONE)
    browser.until(f"location.href == '{line.server.url}' && document.querySelector('.live')")
    browser.until("[].every.call(document.images, function (i) { return i.hidden || i.complete; })")


@pytest.mark.parametrize("size", [DESKTOP, PHONE, (1024, 768), (320, 568)], ids=str)
def test_everything_fits_and_every_picture_loads(
    kit: Kit, line: Any, browser: Any, size: tuple[int, int]
) -> None:
    fill(kit, line)
    line.feed(kit.seen(HOSTILE, 0.9))
    line.shown(61)
    show(browser, line, size)
    browser.until("document.getElementById('frame').textContent.indexOf('long') > 0")
    assert browser.js("document.documentElement.scrollWidth") <= size[0]
    outside = browser.js(
        "[].filter.call(document.querySelectorAll('.card, header *, .number *, .turn *, .foot *'),"
        "function (e) { var b = e.getBoundingClientRect();"
        f"return b.width && (b.left < -1 || b.right > {size[0]} + 1); }}).length"
    )
    assert outside == 0
    browser.until(
        "(function (all) { return all.length >= 10 && all.every(function (i) {"
        " return i.naturalWidth >= 64; }); })"
        "([].filter.call(document.images, function (i) { return !i.hidden && i.src; }))"
    )
    assert browser.js("document.querySelectorAll('#histogram rect').length") > 5
    assert browser.js("document.querySelectorAll('#ticks rect').length") == 61
    image = cv2.imdecode(np.frombuffer(browser.picture(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (size[1], size[0], 3)


def test_names_are_text_and_nothing_else(kit: Kit, line: Any, browser: Any) -> None:
    line.feed(kit.seen(HOSTILE, 0.9))
    line.shown(1)
    show(browser, line)
    browser.until("document.querySelectorAll('.shot').length == 2")
    assert browser.js("document.title") == "Line monitor"
    assert HOSTILE in text(browser, "frame")
    assert browser.js("document.querySelectorAll('b, img[src=x], img[onerror]').length") == 0
    assert browser.js("document.querySelector('#rejects .shot').title") == HOSTILE
    browser.js("document.querySelector('#rejects .shot').click()")
    assert text(browser, "vname") == HOSTILE
    assert browser.js("document.querySelectorAll('b').length") == 0


def test_the_figures(kit: Kit, line: Any, browser: Any) -> None:
    fill(kit, line)
    line.recent.dropped("x.png", 0.0, "deadline")
    show(browser, line)
    browser.until("document.getElementById('word').textContent == 'REJECT'")
    assert text(browser, "score") == "0.900 > 0.5"
    assert text(browser, "rate").replace("\u202f", "") == "10%"
    assert text(browser, "rateof") == "6 of the last 60"
    assert text(browser, "p50") == "23 ms"
    assert text(browser, "frames") == "60"
    assert text(browser, "missed") == "1"
    assert text(browser, "missedof") == "1 deadline"
    assert "54 of 200 good frames" in text(browser, "drift")
    assert "150 good pictures" in text(browser, "baseword")
    assert browser.js("document.getElementById('banner').hidden")


def test_a_reject_stays_for_a_while(kit: Kit, line: Any, browser: Any) -> None:
    fill(kit, line, 5)
    show(browser, line)
    browser.until("document.getElementById('word').textContent == 'OK'")
    line.feed(kit.seen("bad.png", 0.9), kit.seen("next.png", 0.2))
    line.shown(7)
    browser.until("document.getElementById('frame').textContent.indexOf('bad.png') > 0")
    assert text(browser, "word") == "REJECT"
    assert text(browser, "caption") == "last reject, shown for 3 s"
    browser.until("document.getElementById('frame').textContent.indexOf('next.png') > 0")
    assert text(browser, "word") == "OK"
    assert text(browser, "caption") == "newest frame"


def test_a_frame_that_could_not_be_read(kit: Kit, line: Any, browser: Any) -> None:
    line.feed(kit.seen("torn.png", None))
    line.shown(1)
    show(browser, line)
    browser.until("document.getElementById('word').textContent == 'REJECT'")
    assert text(browser, "score") == "not judged"
    assert text(browser, "unseen") == "the file is cut short"
    browser.js("document.querySelector('#rejects .shot').click()")
    assert "not judged: the file is cut short" in text(browser, "vfacts")


def test_drift_is_told_on_top(kit: Kit, line: Any, browser: Any) -> None:
    line.feed(*(kit.seen(score=float(score)) for score in kit.good_scores(200, 1, 0.3)))
    show(browser, line)
    browser.until("!document.getElementById('banner').hidden")
    assert "median 0.3" in text(browser, "banner")
    assert "lamp" in text(browser, "banner")
    line.feed(*(kit.seen(score=float(score)) for score in kit.good_scores(200, 2)))
    browser.until("document.getElementById('banner').hidden")
    line.feed(*[kit.seen(score=0.9)] * 12)
    browser.until("document.getElementById('banner').textContent.indexOf('rejects one') > 0")


def test_clicking_through_the_rejects(kit: Kit, line: Any, browser: Any) -> None:
    fill(kit, line, 30)
    show(browser, line)
    browser.until("document.querySelectorAll('#rejects .shot').length == 3")
    browser.js("document.querySelectorAll('#rejects .shot')[0].click()")
    names = [text(browser, "vname")]
    assert browser.js("document.getElementById('vprev').disabled")
    for _ in range(2):
        browser.js("document.getElementById('vnext').click()")
        names.append(text(browser, "vname"))
    assert names == ["0029.png", "0019.png", "0009.png"]
    assert browser.js("document.getElementById('vnext').disabled")
    browser.js("document.querySelectorAll('#vkinds button')[2].click()")
    browser.until("document.getElementById('vpicture').complete")
    assert browser.js("document.getElementById('vpicture').src").endswith("/10/heat.jpg")
    assert browser.js("document.getElementById('vpicture').naturalWidth") >= 64
    browser.js("document.getElementById('vclose').click()")
    assert browser.js("document.getElementById('viewer').hidden")


def put(browser: Any, value: str) -> None:
    browser.js(
        f"var v = document.getElementById('value'); v.value = {json.dumps(value)};"
        "v.dispatchEvent(new Event('input'))"
    )


def test_turning_the_threshold_shows_first_and_asks_a_name(
    kit: Kit, line: Any, browser: Any, wait_for: Wait
) -> None:
    fill(kit, line)
    show(browser, line, PHONE)
    put(browser, "0,95")
    browser.until("document.getElementById('preview').textContent.indexOf('6 fewer') > 0")
    preview = text(browser, "preview")
    assert "Of the last 60 frames, 6 are rejected now and 0 would be" in preview
    assert "Of 150 good pictures at the build" in preview
    assert browser.js("document.documentElement.scrollWidth") <= PHONE[0]
    assert line.control.threshold == 0.5
    apply = "document.getElementById('apply').click()"
    browser.js(apply)
    assert "name" in text(browser, "preview")
    assert line.control.threshold == 0.5
    browser.js("document.getElementById('who').value = 'Anna <b>'")
    browser.js(apply)
    wait_for(lambda: bool(line.control.threshold == 0.95))
    browser.until("document.getElementById('turns').textContent.indexOf('Anna <b>') > 0")
    assert "0.5 to 0.95" in text(browser, "turns")
    line.feed(kit.seen(threshold=0.95))
    assert line.audit[0]["who"] == "Anna <b> (127.0.0.1)"
    browser.until("!document.getElementById('back').hidden")
    assert "holds at 0.5 only" in text(browser, "preview")
    browser.js("document.getElementById('back').click()")
    browser.js(apply)
    wait_for(lambda: bool(line.control.threshold == 0.5))


def test_nonsense_and_leaving_it_change_nothing(kit: Kit, line: Any, browser: Any) -> None:
    fill(kit, line, 20)
    show(browser, line)
    for value in ("x", "", "-1", "1.5", "NaN"):
        put(browser, value)
        assert "from 0 to 1" in text(browser, "preview")
    put(browser, "0.7")
    browser.js("document.getElementById('cancel').click()")
    assert browser.js("document.getElementById('ask').hidden")
    assert browser.js("document.getElementById('value').value") == "0.5"
    assert line.control.threshold == 0.5


def test_closed_and_opened_again_the_line_went_on(kit: Kit, line: Any, browser: Any) -> None:
    fill(kit, line, 20)
    show(browser, line)
    browser.open("about:blank", *DESKTOP)
    browser.until("location.href == 'about:blank'")
    fill(kit, line, 40)
    show(browser, line)
    browser.until("document.getElementById('frames').textContent == '60'")


def test_a_line_that_ends_is_seen_to_have_ended(kit: Kit, line: Any, browser: Any) -> None:
    fill(kit, line, 20)
    show(browser, line)
    line.server.close()
    browser.until("document.querySelector('main.stale')")
    assert "no answer since" in text(browser, "pulse")
    assert text(browser, "frames") == "20"
