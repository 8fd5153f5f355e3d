"""`train --teacher`: a net learns from another's maps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ndp_edge import checkpoint, losses
from ndp_edge.model.load import load_net
from ndp_edge.train import main

SMALL = ["--batch-size", "2", "--threads", "1", "--image-size", "64", "--perceptual", "none"]
Taught = Callable[..., int]


@pytest.fixture
def taught(photographs: Path, trained: Path) -> Taught:
    """`train --teacher`, with what is given added."""

    def run(out: Path, *extra: str) -> int:
        base = ["--data", str(photographs), "--out", str(out), "--teacher", str(trained)]
        return main([*base, "--steps", "1", "60", "--lr", "1e-3", *SMALL, *extra])

    return run


def apart(kit: SimpleNamespace, run: Path, teacher: Path) -> float:
    """How far the maps of one are from the other's, on pictures that neither saw."""
    images = kit.as_tensor(kit.striped(8, seed=7))
    with torch.no_grad():
        logits = [load_net(checkpoint.load(r)).analyse(images).logits for r in (run, teacher)]
    return float(losses.agreement(*logits))


def test_the_pupil_comes_nearer_to_its_teacher_than_it_would_alone(
    kit: SimpleNamespace, taught: Taught, photographs: Path, trained: Path, tmp_path: Path
) -> None:
    assert taught(tmp_path / "taught", "--teacher-weight", "20") == 0
    alone = ["--data", str(photographs), "--out", str(tmp_path / "alone"), "--lr", "1e-3"]
    assert main([*alone, "--steps", "1", "60", *SMALL]) == 0
    found = [apart(kit, tmp_path / name, trained) for name in ("taught", "alone")]
    assert np.isfinite(found).all()
    assert found[0] < 0.7 * found[1]
    told = kit.losses(tmp_path / "taught")
    assert [e["phase"] for e in told if "distil" in e] == [2] * 60
    assert not [e for e in kit.losses(tmp_path / "alone") if "distil" in e]
    record = checkpoint.load(tmp_path / "taught").training["teacher"]
    assert (record["from"], record["preset"], record["weight"]) == ("run", "tiny", 20.0)
    assert "teacher" not in checkpoint.load(tmp_path / "alone").training


def test_a_state_is_resumed_with_its_own_teacher_only(
    kit: SimpleNamespace,
    taught: Taught,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The state of a run that was killed in phase 2 (its checkpoint not yet finished)."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    length = ["--steps", "1", "5", "--save-every", "3"]
    assert taught(whole, *length) == 0
    shutil.copytree(whole, killed)
    found = checkpoint.load(killed)
    found.training["finished"] = False
    checkpoint.save(killed / checkpoint.CHECKPOINT_NAME, found)
    assert taught(killed, *length, "--resume", "--teacher-weight", "2") == 2
    assert "belongs to a run with other options" in capsys.readouterr().err
    assert taught(killed, *length, "--resume") == 0
    a, b = checkpoint.load(whole), checkpoint.load(killed)
    assert all(np.array_equal(a.weights[k], b.weights[k]) for k in a.weights)
    assert kit.losses(whole) == kit.losses(killed)


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["--teacher", "/nowhere"], "no checkpoint"),
        (["--teacher-weight", "0"], "positive"),
        (["--teacher-weight", "nan"], "positive"),
        (["--seed", "1"], "trained on 16 pictures"),
    ],
)
def test_what_cannot_teach_is_refused(
    kit: SimpleNamespace,
    taught: Taught,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    told: str,
) -> None:
    """Seed 1 splits otherwise: its threshold pictures are some that the teacher was shown."""
    assert taught(tmp_path / "run", *extra) == 2
    assert told in kit.one_error(capsys)
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_other_pictures_sizes_is_refused(
    taught: Taught, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = checkpoint.load(trained)
    file = tmp_path / "larger.safetensors"
    larger = replace(found.config, image_size=128)
    checkpoint.save(file, checkpoint.Checkpoint(larger, found.weights, found.training))
    assert taught(tmp_path / "run", "--teacher", str(file)) == 2
    assert "pictures of 128 pixels" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_weight_needs_a_teacher(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(photographs), "--out", str(tmp_path / "run"), "--teacher-weight", "2"]
    assert main([*words, *SMALL]) == 2
    assert "needs a --teacher" in capsys.readouterr().err


def test_qat_has_its_own_teacher(
    trained: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--qat", str(trained), "--data", str(photographs), "--out", str(tmp_path / "run")]
    assert main([*words, "--teacher", str(trained)]) == 2
    assert "--teacher" in capsys.readouterr().err
