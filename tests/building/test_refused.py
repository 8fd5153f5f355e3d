"""A build that cannot be right, a leak above all, is refused with one line and leaves nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from ndp_edge.data.folder import open_dataset
from ndp_edge.data.splits import split


@pytest.mark.parametrize(
    "case",
    [
        (["--target-false-reject", "0.01"], "15 good images cannot carry"),
        (["--target-false-reject", "1.5"], "must lie in (0, 1)"),
        (["--max-drop", "-1"], "must lie in [0, 1)"),
        (["--calib-images", "0"], "at least 1"),
        (["--fp16"], "FP16"),
        (["--seed", "4"], "was trained on"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path, case: tuple[list[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options, words = case
    assert kit.run(net, data, tmp_path / "bundle", *options) == 2
    kit.refused_with(words, capsys, tmp_path / "bundle")


def test_a_test_picture_that_was_trained_on_is_named(
    kit: SimpleNamespace, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = split(open_dataset(data), seed=0)
    leaked = splits.test[0]
    net = kit.make_net(tmp_path / "leak.onnx", split_seed=0, hashes=[splits.hashes[leaked.name]])
    assert kit.run(net, data, tmp_path / "bundle") == 2
    kit.refused_with(leaked.name, capsys, tmp_path / "bundle")


def test_a_test_picture_copied_into_train_is_named(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    copied = sorted((root / "test" / "good").iterdir())[0]
    shutil.copy(copied, root / "train" / "good" / "zzz.png")
    assert kit.run(net, root, tmp_path / "bundle") == 2
    kit.refused_with("zzz.png", capsys, tmp_path / "bundle")


@pytest.mark.parametrize("name", ["absent.onnx", "rubbish.onnx", "rubbish.safetensors", "absent"])
def test_a_checkpoint_that_is_none_is_refused(
    kit: SimpleNamespace, data: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.startswith("rubbish"):
        (tmp_path / name).write_bytes(b"rubbish" * 100)
    assert kit.run(tmp_path / name, data, tmp_path / "bundle") == 2
    kit.refused_with(name, capsys, tmp_path / "bundle")


def test_a_backend_that_is_missing_names_its_install_command(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit.run(net, data, tmp_path / "bundle", "--engine", "tensorrt") == 3
    kit.refused_with("install", capsys, tmp_path / "bundle")
