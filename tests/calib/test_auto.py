"""`--calib-method auto`: the tune set it judges on, what it keeps, and what it tells."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge.calib import auto, ranges
from ndp_edge.calib.artificial import MOST_GOOD, drop, make_tune_set
from ndp_edge.calib.auto import TIE, calibrate_auto, pick
from ndp_edge.calib.calibrate import calibrate
from ndp_edge.calib.ranges import METHODS, Ranges, Statistics
from ndp_edge.data.surface import draw
from ndp_edge.errors import InputError

SHIPPED = Path(auto.__file__).parents[1] / "ndp_edge" / "data" / "nano_woven.onnx"


def lines(**drops: float) -> list[dict[str, Any]]:
    return [{"method": method, "drop": value} for method, value in drops.items()]


def test_every_good_picture_gets_two_defects_and_stays_itself(kit: SimpleNamespace) -> None:
    good = kit.pictures(5)
    tune = make_tune_set(good, seed=1)
    assert np.array_equal(tune.images[:5], good)
    assert tune.labels.tolist() == [0] * 5 + [1] * 10
    assert not tune.masks[:5].any()
    assert tune.masks[5:].any(axis=(1, 2)).all()
    for index, (picture, mask) in enumerate(zip(tune.images[5:], tune.masks[5:], strict=True)):
        changed = (picture != good[index // 2]).any(axis=2)
        assert changed.any()
        assert not (changed & ~mask).any(), "outside its mask a picture is what it was"


def test_equal_arguments_give_equal_pictures_and_another_seed_others(kit: SimpleNamespace) -> None:
    good = kit.pictures(3)
    first, again, other = (make_tune_set(good, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.masks, again.masks)
    assert not np.array_equal(first.images, other.images)


@pytest.mark.parametrize("level", [0, 40, 255])
def test_flat_pictures_black_or_white_end_too(level: int) -> None:
    tune = make_tune_set(np.full((5, 64, 64, 3), level, np.uint8))
    assert tune.masks[5:].any(axis=(1, 2)).all()


def test_gray_surfaces_get_gray_defects() -> None:
    gray = np.repeat(np.random.default_rng(0).integers(60, 190, (4, 64, 64, 1)), 3, 3)
    images = make_tune_set(gray.astype(np.uint8)).images
    assert (np.ptp(images, axis=3) == 0).all()


def test_more_pictures_than_are_judged_are_left_out(kit: SimpleNamespace) -> None:
    good = np.repeat(kit.pictures(1), MOST_GOOD + 3, axis=0)
    assert len(make_tune_set(good).images) == 3 * MOST_GOOD


@pytest.mark.parametrize("shape", [(0, 64, 64, 3), (2, 64, 64), (2, 64, 64, 1)])
def test_no_pictures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="tune set"):
        make_tune_set(np.zeros(shape, np.uint8))


@given(
    drops=st.lists(st.floats(0, 1), min_size=len(METHODS), max_size=len(METHODS)),
    order=st.permutations(METHODS),
)
def test_the_kept_one_is_within_a_tie_of_the_best_and_nothing_earlier_is(
    drops: list[float], order: list[str]
) -> None:
    by_method = dict(zip(METHODS, drops, strict=True))
    kept = pick(lines(**{method: by_method[method] for method in order}))
    near = min(drops) + TIE
    assert by_method[kept] <= near
    assert all(by_method[m] > near for m in METHODS[: METHODS.index(kept)])


def test_a_gain_over_fp32_does_not_make_up_for_a_drop() -> None:
    fp32 = {"image_auroc": 0.9, "pixel_auroc": 0.8, "aupro": 0.7}
    assert drop(fp32, fp32) == 0
    assert drop({**fp32, "aupro": 0.65, "image_auroc": 1.0}, fp32) == pytest.approx(0.05)


def test_the_record_bears_out_the_choice_and_the_file_is_the_kept_methods(
    kit: SimpleNamespace, exported: Path, tmp_path: Path
) -> None:
    images, out = kit.pictures(8), tmp_path / "auto.onnx"
    told = calibrate_auto(
        exported, images[:4], out, tune=make_tune_set(images[4:]), backend="onnxruntime", seed=3
    )
    tried = told["candidates"]
    assert [line["method"] for line in tried] == list(METHODS)
    assert [line["method"] for line in tried if line["kept"]] == [told["method"]] == [pick(tried)]
    for line in tried:
        assert line["drop"] == drop(line, told["fp32"])
        assert line["map_rms"] > 0
    assert told["fp32"]["map_rms"] == told["fp32"]["score_rms"] == 0
    assert (told["asked"], told["judged_on"]) == ("auto", "onnxruntime")
    assert (told["tune"], told["n"], told["seed"]) == (12, 4, 3)
    calibrate(exported, images[:4], tmp_path / "alone.onnx", method=told["method"])
    assert out.read_bytes() == (tmp_path / "alone.onnx").read_bytes()


def spoilt(method: str, factor: float) -> Any:
    """`Statistics.ranges`, with one method's ranges too wide by `factor`."""
    right = Statistics.ranges

    def wrong(self: Statistics, asked: str) -> Ranges:
        found = right(self, asked)
        if asked != method:
            return found
        return {name: (low * factor, high * factor) for name, (low, high) in found.items()}

    return wrong


@pytest.mark.slow
def test_a_spoilt_method_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = np.stack([draw("woven", 0, i)[0] for i in range(6)])
    monkeypatch.setattr(ranges.Statistics, "ranges", spoilt("minmax", 60.0))
    out = tmp_path / "auto.onnx"
    told = calibrate_auto(
        SHIPPED, good[:3], out, tune=make_tune_set(good[3:]), backend="openvino", seed=0
    )
    assert told["method"] != "minmax"
    found = {line["method"]: line for line in told["candidates"]}
    assert found["minmax"]["drop"] > found[told["method"]]["drop"] + TIE
    assert found["minmax"]["map_rms"] > 3 * found[told["method"]]["map_rms"]
