"""Native or plugin for the card at hand: both built, both timed, the faster kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from ndp_edge import build_card
from ndp_edge.build_card import Card, build_on_card
from ndp_edge.build_trt import Models, entry, notes
from ndp_edge.engines import trt_compat
from ndp_edge.engines.sidecar import check_fits, read_sidecar
from ndp_edge.engines.trt_builder import BuildOptions, BuiltPlan
from ndp_edge.errors import InputError, MachineError
from ndp_edge.types import Layer

CARD = Card("sm87", "Orin", "12.6")
Files = tuple[Path, Path]


def _make(models: Models, precision: str, variant: str, options: BuildOptions, card: Card) -> Any:
    about = {
        "backend": "tensorrt",
        "version": "10.3.0",
        "batches": list(options.batches),
        "typing": "strong",
    }
    layers = [Layer("a", "Convolution", precision, 0.0)]
    cache = (options.cache or b"") + variant[:1].encode()
    plugin = "abc" if variant == "plugin" else None
    return BuiltPlan(f"{precision} {variant}".encode(), layers, cache, about), plugin


def _times(**ms: float) -> tuple[Callable[[Path, str], float], list[str]]:
    seen: list[str] = []

    def measure(plan: Path, precision: str) -> float:
        sidecar = read_sidecar(plan)  # as the engine would read it
        assert plan.read_bytes() == f"{precision} {sidecar.variant}".encode()
        seen.append(sidecar.variant)
        return ms[sidecar.variant]

    return measure, seen


@pytest.mark.parametrize(("native", "plugin", "best"), [(5, 3, "plugin"), (3, 5, "native")])
def test_the_faster_variant_is_kept(
    files: Files, tmp_path: Path, native: float, plugin: float, best: str
) -> None:
    measure, seen = _times(native=native, plugin=plugin)
    engine, cache, told = build_on_card(
        tmp_path.joinpath, Models(*files), "int8", batches=(1, 8), cache=b"c", card=CARD,
        make=_make, measure=measure,
    )  # fmt: skip
    assert seen == ["native", "plugin"]
    assert cache == b"cnp"  # the second build starts from the first one's
    assert told == [f"int8 {best} was kept: native {native:.3f} ms, plugin {plugin:.3f} ms"]
    sidecar = read_sidecar(tmp_path / "engines" / "tensorrt-int8-sm87.plan")
    assert sidecar == engine.sidecar
    assert (sidecar.variant, sidecar.plugin) == (best, "abc" if best == "plugin" else None)
    assert (sidecar.gpu, sidecar.cuda, sidecar.batches) == ("Orin", "12.6", (1, 8))
    assert (tmp_path / engine.file).read_bytes() == f"int8 {best}".encode()
    assert "judged_on" not in entry(engine, None)
    assert notes([engine], None) == []


@pytest.mark.parametrize(("precision", "variant", "kept"), [
    ("fp32", "auto", "native"), ("fp16", "plugin", "plugin"), ("int8", "native", "native"),
])  # fmt: skip
def test_a_single_candidate_is_not_timed(
    files: Files, tmp_path: Path, precision: str, variant: str, kept: str
) -> None:
    measure, seen = _times()
    engine, _, told = build_on_card(
        tmp_path.joinpath, Models(*files), precision, batches=(1,), variant=variant, card=CARD,
        make=_make, measure=measure,
    )  # fmt: skip
    assert (engine.sidecar.variant, seen, told) == (kept, [], [])


def test_without_nvcc_the_native_engine_is_kept_and_the_reason_told(
    files: Files, tmp_path: Path
) -> None:
    def make(*arguments: Any) -> Any:
        if arguments[2] == "plugin":
            raise MachineError("the plugin needs nvcc: apt install it")
        return _make(*arguments)

    engine, _, told = build_on_card(
        tmp_path.joinpath, Models(*files), "int8", batches=(1,), card=CARD, make=make,
        measure=_times()[0],
    )  # fmt: skip
    assert engine.sidecar.variant == "native"
    assert told == ["built without the plugin: the plugin needs nvcc: apt install it"]
    with pytest.raises(MachineError, match="nvcc"):
        build_on_card(
            tmp_path.joinpath, Models(*files), "int8", batches=(1,), variant="plugin", card=CARD,
            make=make, measure=_times()[0],
        )  # fmt: skip


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_10_3_falls_back_to_weak_typing_and_the_sidecar_says_so(
    files: Files, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch,
    fake: Callable[..., SimpleNamespace],
) -> None:  # fmt: skip
    trt = fake("10.3.0", fails="strong")
    monkeypatch.setattr(trt_compat, "load", lambda backend: trt)
    graphs: list[bytes] = []
    built = build_card.build_plan
    monkeypatch.setattr(
        build_card,
        "build_plan",
        lambda data, options, trt: graphs.append(data) or built(data, options, trt=trt),
    )
    engine, _, _ = build_on_card(
        tmp_path.joinpath, Models(*files), precision, batches=(1,), variant="native", card=CARD
    )
    assert engine.sidecar.typing == "weak"
    kinds = [{t.data_type for t in onnx.load_from_string(g).graph.initializer} for g in graphs]
    half = onnx.TensorProto.FLOAT16
    assert [half in kind for kind in kinds] == [True, False]  # weakly typed it is all float32


def test_other_versions_do_not_fall_back(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    fake: Callable[..., SimpleNamespace],
) -> None:  # fmt: skip
    monkeypatch.setattr(trt_compat, "load", lambda backend: fake("10.13.3.9", fails="strong"))
    with pytest.raises(MachineError, match=r"10\.13\.3\.9 built no int8 engine"):
        build_on_card(
            tmp_path.joinpath, Models(*files), "int8", batches=(1,), variant="native", card=CARD
        )


def test_a_sidecar_that_does_not_fit_names_the_difference_and_the_command(
    files: Files, tmp_path: Path
) -> None:
    engine, _, _ = build_on_card(
        tmp_path.joinpath, Models(*files), "int8", batches=(1,), variant="plugin", card=CARD,
        make=_make,
    )  # fmt: skip
    plan = tmp_path / engine.file
    sidecar = read_sidecar(plan)
    check_fits(plan, sidecar, {"version": "10.3.0", "sm": "sm87", "plugin": "abc"}, "rebuild it")
    for here, words in (
        ({"version": "10.13.0"}, "tensorrt is 10.13.0 here, 10.3.0 in the engine"),
        ({"sm": "sm110"}, "the card is sm110 here, sm87 in the engine"),
        ({"plugin": "def"}, "the plugin is def here"),
    ):
        with pytest.raises(MachineError, match=f"{words}.*; run: rebuild it"):
            check_fits(plan, sidecar, here, "rebuild it")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"batches": []}', '{"batches": ["1"]}'])
def test_a_damaged_sidecar_is_refused(files: Files, tmp_path: Path, text: str) -> None:
    plan = tmp_path / "x.plan"
    with pytest.raises(InputError, match="no sidecar"):
        read_sidecar(plan)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="again"):
        read_sidecar(plan)


def test_what_does_not_run_in_int8_is_told(files: Files, tmp_path: Path) -> None:
    engine, _, _ = build_on_card(
        tmp_path.joinpath, Models(*files), "int8", batches=(1,), variant="native", card=CARD,
        make=_make,
    )  # fmt: skip
    slow = type(engine)(engine.file, engine.sidecar, [Layer("a", "Convolution", "fp16", 0.0)])
    judged, fallen = notes([slow], "openvino")
    assert "judged on openvino" in judged
    assert "not run here" in judged
    assert "asked for int8, convolutions: 1 fp16" in fallen
    assert notes([slow], "openvino", files[1]) == [judged]  # the graph itself leaves one in float
    two = type(engine)(engine.file, engine.sidecar, 2 * slow.layers)
    assert "convolutions: 2 fp16" in notes([two], "openvino", files[1])[1]
