"""The inspection as a library: the examples of docs/library.md, and what happens at its edges."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace as Kit
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ndp_edge
from ndp_edge import engines
from ndp_edge.errors import InputError, NdpError
from ndp_edge.image import write_png

SIZE = 64
DOCUMENT = Path(__file__).parents[2] / "docs" / "library.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def inspector(bundle: Path) -> Iterator[ndp_edge.Inspector]:
    with ndp_edge.Inspector(bundle) as made:
        yield made


def gray(value: int = 60, height: int = SIZE, width: int = SIZE) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_run(
    kit: Kit, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    assert bundle == tmp_path / "bundle"
    (tmp_path / "frames").mkdir()
    for name, bright in (("a", 8), ("b", 0), ("c", 0)):
        write_png(tmp_path / "frames" / f"{name}.png", kit.frame(bright))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(DOCUMENT), "exec"), {"__name__": "example"})


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


def test_importing_the_package_stays_light() -> None:
    code = (
        "import sys, ndp_edge\n"
        "heavy = {'numpy', 'cv2', 'onnx', 'openvino', 'torch', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert ndp_edge.Inspector.__name__ == 'Inspector'\n"
        "assert not {'torch', 'openvino'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")
    with pytest.raises(AttributeError, match="no attribute 'Inspectr'"):
        _ = ndp_edge.Inspectr


def test_one_frame(kit: Kit, inspector: ndp_edge.Inspector, folder: Path) -> None:
    result = inspector(kit.frame(bright=8), name="belt")
    assert (result.frame, result.verdict, result.rejected) == ("belt", "reject", True)
    assert result.score == pytest.approx(0.8)
    assert result.defects[0].box == (20, 10, 16, 8)
    assert result.bundle == inspector.bundle.hash
    assert set(result.latency_ms) == {"read", "wait", "tile", "infer", "judge", "total"}
    assert result.overlay().shape == (SIZE, SIZE, 3)
    assert inspector(folder / "c.png").frame == str(folder / "c.png")
    assert inspector(np.full((SIZE, SIZE), 60, np.uint8)).verdict == "ok"


def test_results_own_their_arrays(inspector: ndp_edge.Inspector) -> None:
    frames = [gray(value) for value in (10, 90, 250)]
    singles = [inspector(frame) for frame in frames]
    streamed = list(inspector.stream(frames))
    for results in (singles, streamed):
        means = [float(r.heat.mean()) for r in results if r.heat is not None]
        assert means == pytest.approx([10 / 255, 90 / 255, 250 / 255])


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((SIZE, SIZE, 3), np.float32), "float32"),
        (np.zeros((SIZE, SIZE, 4), np.uint8), "shape"),
        (np.zeros((0, SIZE, 3), np.uint8), "shape"),
        (np.zeros((SIZE // 2, SIZE // 2, 3), np.uint8), "smaller"),
        ("no/such.png", "no such file"),
        ([[1, 2], [3, 4]], "list"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_frame_is_refused(inspector: ndp_edge.Inspector, frame: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        inspector(frame)
    assert inspector(gray()).verdict == "ok"


def test_an_engine_that_fails_is_no_verdict(inspector: ndp_edge.Inspector) -> None:
    with pytest.raises(NdpError, match="NaN"):
        inspector(gray(1))
    assert inspector(gray()).verdict == "ok"


def test_a_stream_keeps_order_and_goes_on_behind_a_broken_frame(
    inspector: ndp_edge.Inspector, folder: Path
) -> None:
    given = [gray(), ("named", gray(204)), folder / "none.png", gray(1), gray(60, SIZE, 150)]
    found = list(inspector.stream(given))
    assert [r.frame for r in found] == [
        "000000", "named", str(folder / "none.png"), "000003", "000004",
    ]  # fmt: skip
    assert [r.verdict for r in found] == ["ok", "reject", "reject", "reject", "ok"]
    assert [r.error is None for r in found] == [True, True, False, False, True]
    with pytest.raises(InputError, match="not judged"):
        found[2].overlay()
    assert [r.frame for r in inspector.stream(folder)] == ["a.png", "b/2.png", "c.png"]


def test_leaving_a_stream_early_frees_the_inspector(inspector: ndp_edge.Inspector) -> None:
    before = threading.active_count()
    for _result in inspector.stream(gray() for _ in range(10_000)):
        with pytest.raises(InputError, match="busy"):
            inspector(gray())
        break
    assert inspector(gray()).verdict == "ok"
    assert threading.active_count() == before


def test_what_the_source_raises_reaches_the_loop(inspector: ndp_edge.Inspector) -> None:
    def dies() -> Iterator[NDArray[np.uint8]]:
        yield gray()
        raise RuntimeError("the cable")

    found = []
    with pytest.raises(RuntimeError, match="the cable"):
        for result in inspector.stream(dies()):
            found.append(result.verdict)
    assert found == ["ok"]
    with pytest.raises(InputError, match="float64"):
        list(inspector.stream([np.zeros((SIZE, SIZE, 3))]))
    for source in (5, "/no/such/folder"):
        with pytest.raises(InputError):
            list(inspector.stream(source))  # type: ignore[arg-type]
    assert inspector(gray()).verdict == "ok"


def test_an_event_loop_stays_free(inspector: ndp_edge.Inspector) -> None:
    async def camera() -> AsyncIterator[NDArray[np.uint8]]:
        for number in range(8):
            await asyncio.sleep(0.005)
            yield gray(204 if number == 3 else 60)

    async def main() -> tuple[list[str], int]:
        ticks, verdicts = 0, []

        async def clock() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.002)
                ticks += 1

        beating = asyncio.create_task(clock())
        async for result in inspector.stream(camera()):
            verdicts.append(result.verdict)
        beating.cancel()
        async for _result in inspector.stream([gray()] * 500):
            break
        return verdicts, ticks

    verdicts, ticks = asyncio.run(main())
    assert verdicts == ["ok"] * 3 + ["reject"] + ["ok"] * 4
    assert ticks >= 5
    assert inspector(gray()).verdict == "ok"  # the loop's end closed the stream left early
    with pytest.raises(InputError, match="async for"):
        list(inspector.stream(camera()))


def test_what_an_asynchronous_source_raises_reaches_the_loop(
    inspector: ndp_edge.Inspector,
) -> None:
    async def dies() -> AsyncIterator[NDArray[np.uint8]]:
        yield gray()
        raise RuntimeError("the cable")

    async def main() -> list[str]:
        return [result.verdict async for result in inspector.stream(dies())]

    with pytest.raises(RuntimeError, match="the cable"):
        asyncio.run(main())
    assert inspector(gray()).verdict == "ok"


def test_threshold_latency_and_closing(
    kit: Kit, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def opened(*names: Any, precision: str, **options: Any) -> Any:
        asked.append(options["latency"])
        return kit.open_brightness(*names, precision=precision)

    monkeypatch.setattr(engines, "open_engine", opened)
    with ndp_edge.Inspector(bundle, threshold=0.9, in_flight=1) as inspector:
        assert inspector(gray(204)).verdict == "ok"
        inspector.threshold = 0.5
        assert inspector(gray(204)).verdict == "reject"
        with pytest.raises(InputError, match="threshold"):
            inspector.threshold = 2.0
    ndp_edge.Inspector(bundle).close()
    assert asked == [True, False]
    inspector.close()
    with pytest.raises(InputError, match="closed"):
        inspector(gray())
    with pytest.raises(InputError, match="closed"):
        list(inspector.stream([gray()]))


def test_a_stream_left_early_leaves_nothing_in_the_engine(
    kit: Kit, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wide(kit.Brightness):
        lanes = 7

    monkeypatch.setattr(
        engines, "open_engine", lambda *_a, precision, **_k: Wide(precision, (SIZE, SIZE))
    )
    with ndp_edge.Inspector(bundle) as inspector:
        for _ in range(3):
            for _found in inspector.stream(gray() for _ in range(200)):
                break
            assert not inspector._engine._pending


def test_arguments_out_of_their_range(bundle: Path, inspector: ndp_edge.Inspector) -> None:
    with pytest.raises(InputError, match="in_flight -1"):
        ndp_edge.Inspector(bundle, in_flight=-1)
    with pytest.raises(InputError, match="queue 0"):
        inspector.stream([], queue=0)
    with pytest.raises(InputError, match="drop 'older'"):
        inspector.stream([], drop="older")  # type: ignore[arg-type]
    for value in (float("nan"), 10**400, "0.5"):
        with pytest.raises(InputError, match="threshold"):
            inspector.threshold = value  # type: ignore[assignment]
