"""Calibration through the build's door: which pictures, by which method, and no leak."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest

from ndp_edge import evaluate
from ndp_edge.build_calibrate import calibration_samples
from ndp_edge.build_inputs import UNSEEN, refuse_same_pixels
from ndp_edge.bundle import Bundle
from ndp_edge.calib.ranges import METHODS
from ndp_edge.data.folder import Sample, open_dataset
from ndp_edge.data.splits import Splits, split
from ndp_edge.errors import InputError


@pytest.fixture(scope="session")
def splits(data: Path) -> Splits:
    return split(open_dataset(data), seed=3)


def saved_again(source: Path, target: Path) -> Path:
    """The same pixels in another file."""
    picture = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert cv2.imwrite(str(target), picture)
    assert target.read_bytes() != source.read_bytes()
    return target


def test_auto_keeps_a_method_and_tells_how_the_others_did(
    kit: SimpleNamespace, net: Path, data: Path, splits: Splits, tmp_path: Path
) -> None:
    assert kit.run(net, data, tmp_path / "bundle", "--int8", "--calib-method", "auto") == 0
    bundle = Bundle.open(tmp_path / "bundle")
    told = bundle.manifest["calibration"]
    assert told["asked"] == "auto"
    assert told["method"] in METHODS
    assert told["tune"] == 3 * len(splits.tune) == 6
    report = json.loads((bundle.root / "report.json").read_text())
    assert "candidates" not in report["calibration"]
    tried = report["calibration_methods"]["candidates"]
    assert [line["method"] for line in tried if line["kept"]] == [told["method"]]
    page = (bundle.root / "report.html").read_text()
    assert "Calibration methods" in page
    assert f"{told['method']}, kept" in page


def test_auto_without_a_tune_split_says_what_to_do(
    kit: SimpleNamespace, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "few"
    (root / "train" / "good").mkdir(parents=True)
    for picture in sorted((data / "train" / "good").iterdir())[:12]:
        shutil.copy(picture, root / "train" / "good")
    net = kit.make_net(tmp_path / "n.onnx", split_seed=0, hashes=[])
    assert kit.run(net, root, tmp_path / "bundle", "--int8", "--calib-method", "auto") == 2
    kit.refused_with("add photographs to train/good", capsys, tmp_path / "bundle")


def test_fewer_pictures_are_the_first_of_more(
    kit: SimpleNamespace, net: Path, data: Path, splits: Splits, tmp_path: Path
) -> None:
    assert kit.run(net, data, tmp_path / "bundle", "--int8", "--calib-images", "2") == 0
    told = Bundle.open(tmp_path / "bundle").manifest["calibration"]
    assert (told["n"], told["pool"]) == (2, len(splits.calibration))
    ranked = [sample.name for sample in calibration_samples(splits, None, 64)]
    assert set(told["files"]) == set(ranked[:2])
    assert sorted(ranked) == sorted(sample.name for sample in splits.calibration)


def test_more_pictures_than_there_are_take_all_and_say_so(
    splits: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(calibration_samples(splits, 99, 64)) == len(splits.calibration)
    assert "has 4 images, not 99" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["zzz.png", "zzz.tif"])
@pytest.mark.parametrize("kind", ["good", "hole"])
def test_a_test_picture_planted_among_the_good_ones_is_refused(
    kit: SimpleNamespace, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    name: str, kind: str,
) -> None:  # fmt: skip
    """As the same file, and saved again: then it must lie in a split that was not trained on."""
    root = Path(shutil.copytree(data, tmp_path / "data"))
    leaked = sorted((root / "test" / kind).iterdir())[0]
    planted = root / "train" / "good" / name
    if name.endswith(".tif"):
        saved_again(leaked, planted)
    else:
        shutil.copy(leaked, planted)
    held = split_of(root, planted, seeds=range(40)) if name.endswith(".tif") else 0
    net = kit.make_net(tmp_path / "n.onnx", split_seed=held, hashes=[])
    assert kit.run(net, root, tmp_path / "bundle", "--int8") == 2
    lines = kit.errors(capsys)
    assert len(lines) == 1
    assert f"test/{kind}/{leaked.name}" in lines[0]
    assert name in lines[0]
    assert not (tmp_path / "bundle").exists()


def split_of(root: Path, planted: Path, seeds: range) -> int:
    """The first seed that puts the planted picture into the calibration split."""
    name = planted.relative_to(root).as_posix()
    for seed in seeds:
        if name in {sample.name for sample in split(open_dataset(root), seed).calibration}:
            return seed
    raise AssertionError("no seed puts it there")


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(UNSEEN, 2)])
def test_any_two_sets_that_share_a_picture_are_refused(
    splits: Splits, tmp_path: Path, first: str, second: str
) -> None:
    refuse_same_pixels(splits, 64)
    mine: list[Sample] = getattr(splits, first)
    copied = saved_again(mine[0].path, tmp_path / "again.bmp")
    stray = Sample(copied, "again.bmp", 0, "good", None)
    leaky = dataclasses.replace(splits, **{second: [*getattr(splits, second), stray]})
    with pytest.raises(InputError, match=rf"again\.bmp \({second}\).*\({first}\)"):
        refuse_same_pixels(leaky, 64)


@pytest.mark.parametrize("part", ["calibration", "tune", "threshold", "train"])
def test_evaluate_refuses_what_the_bundle_was_made_from(
    kit: SimpleNamespace, built: Path, data: Path, splits: Splits, tmp_path: Path, part: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    root = Path(shutil.copytree(data / "test", tmp_path / "d" / "test")).parent
    shutil.copytree(data / "ground_truth", root / "ground_truth")
    shutil.copytree(data / "train", root / "train")
    leaked: Sample = getattr(splits, part)[0]
    shutil.copy(leaked.path, root / "test" / "good" / "zzz.png")
    assert evaluate.main([str(built), "--data", str(root)]) == 2
    (line,) = kit.errors(capsys)
    assert "test/good/zzz.png" in line
    assert f"{part} split" in line
