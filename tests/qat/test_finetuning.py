"""`train --qat` as a user has it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge import checkpoint
from ndp_edge.calib.calibrate import calibrate as calibrate_file
from ndp_edge.engines import open_engine
from ndp_edge.export.exporter import export_onnx
from ndp_edge.image import write_png
from ndp_edge.train import main

SIDE = 64
SMALL = ["--batch-size", "2", "--threads", "1"]
TRAIN = [*SMALL, "--image-size", str(SIDE), "--perceptual", "none"]
Qat = Callable[..., int]


def test_a_short_run_brings_int8_nearer_to_the_float_answer(
    kit: SimpleNamespace, trained: Path, tuned: Path
) -> None:
    before, after = checkpoint.load(trained), checkpoint.load(tuned)
    told = after.training["qat"]
    assert told["map_rms_after"] < 0.9 * told["map_rms_before"]
    assert told["map_rms_float"] > 0
    assert {e["phase"] for e in kit.losses(tuned)} == {3}
    assert len(kit.losses(tuned)) == 30
    changed = {
        name for name in before.weights
        if not np.array_equal(before.weights[name], after.weights[name])
    }  # fmt: skip
    assert {name.split(".")[0] for name in changed} == {"rbam", "decoder", "msdsm"}
    assert not [n for n in changed if n.endswith(("running_mean", "running_var", "tracked"))]
    assert len(list((tuned / "samples").glob("*.png"))) == 2


def test_its_checkpoint_is_an_ordinary_one(
    kit: SimpleNamespace, trained: Path, tuned: Path, tmp_path: Path
) -> None:
    """Exported and calibrated as any other; what it trained on stays refused to the gate."""
    before, after = checkpoint.load(trained), checkpoint.load(tuned)
    assert after.config == before.config
    assert after.training["finished"]
    for key in ("hashes", "split_seed", "split_digest", "reference_hash"):
        assert after.training[key] == before.training[key]
    assert after.training["options"]["steps"] == [1, 1, 30]
    assert len(after.training["qat"]["from_sha256"]) == 64
    files = {}
    for name, run in (("before", trained), ("after", tuned)):
        float_file = tmp_path / f"{name}.onnx"
        export_onnx(run, float_file, images=kit.striped(2), check=True)
        files[name] = tmp_path / f"{name}.int8.onnx"
        done = calibrate_file(float_file, kit.striped(8, seed=3), files[name])
        assert done["convolutions"] > 40
    images = kit.striped(8, seed=4)
    answers = {}
    for name, file in [("float", tmp_path / "before.onnx"), *files.items()]:
        with open_engine(
            "onnxruntime", file, precision="fp32" if name == "float" else "int8"
        ) as engine:
            answers[name] = engine.infer(images)
    assert np.isfinite(answers["after"]).all()
    error = {name: np.square(answers[name] - answers["float"]).mean() for name in files}
    assert error["after"] < error["before"]


KILLED = ["--steps", "8", "--save-every", "3"]


def test_stopped_it_resumes_to_the_same_losses(
    kit: SimpleNamespace, qat: Qat, photographs: Path, trained: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "ndp_edge.train", "--qat", str(trained), "--data",
               str(photographs), "--out", str(out), *SMALL, *KILLED]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = out / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.read_text().count("\n") >= 2:
            process.terminate()
            break
        time.sleep(0.002)
    told = process.communicate()[1]
    finished = checkpoint.load(out).training["finished"]
    if not finished:  # it may have ended before the signal came
        assert process.returncode == 130
        assert f"--qat {trained} --resume" in told
        # A state of another checkpoint is not this one's.
        other = tmp_path / "other.safetensors"
        found = checkpoint.load(trained)
        found.training["seed"] = 1
        checkpoint.save(other, found)
        assert qat(out, *KILLED, "--resume", "--qat", str(other)) == 2
    assert qat(out, *KILLED, "--resume") == (2 if finished else 0)
    assert kit.losses(out) == kit.losses(whole)
    a, b = checkpoint.load(whole), checkpoint.load(out)
    assert all(np.array_equal(a.weights[k], b.weights[k]) for k in a.weights)
    assert a.training == b.training


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["--steps", "3", "3"], "one number"),
        (["--steps", "0"], "at least 1"),
        (["--lr", "0"], "learning rate"),
        (["--preset", "paper"], "--preset"),
        (["--image-size", "128"], "--image-size"),
        (["--amp", "bf16"], "--amp"),
        (["--epochs", "1", "1"], "--epochs"),
        (["--anomaly-source", "/nowhere"], "no such folder"),
        (["--data", "/nowhere"], "nowhere"),
        (["--qat", "/nowhere"], "no checkpoint"),
    ],
)
def test_bad_options_get_one_line_and_exit_2(
    kit: SimpleNamespace,
    qat: Qat,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    told: str,
) -> None:
    assert qat(tmp_path / "run", *extra) == 2
    assert told in kit.one_error(capsys)
    assert not (tmp_path / "run").exists()


def test_without_qat_steps_are_two(
    kit: SimpleNamespace, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(photographs), "--out", str(tmp_path / "run"), "--steps", "3"]
    assert main([*arguments, *TRAIN]) == 2
    assert "two numbers" in kit.one_error(capsys)


@pytest.mark.parametrize("fault", ["unfinished", "twice", "not finite", "no record", "another net"])
def test_a_wrong_checkpoint_is_refused(
    kit: SimpleNamespace,
    qat: Qat,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    found = checkpoint.load(trained)
    if fault == "unfinished":
        found.training["finished"] = False
    elif fault == "twice":
        found.training["qat"] = {}
    elif fault == "not finite":
        found.weights["decoder.to_image.bias"][0] = np.nan
    elif fault == "no record":
        found.training = {"finished": True}
    else:
        found.weights["decoder.to_image.bias"] = np.zeros(4, np.float32)
    file = tmp_path / "wrong.safetensors"
    checkpoint.save(file, found)
    assert qat(tmp_path / "run", "--qat", str(file)) == 2
    wanted = {
        "unfinished": "not finished",
        "twice": "fine-tuned by --qat already",
        "not finite": "to_image.bias are not finite",
        "no record": "how it was trained",
        "another net": "shape (4,)",
    }
    assert wanted[fault] in kit.one_error(capsys)
    assert not (tmp_path / "run").exists()


def test_other_photographs_are_refused(
    kit: SimpleNamespace,
    qat: Qat,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A few more: the splits fall differently, and the net has seen some of the others."""
    root = tmp_path / "more"
    (root / "train" / "good").mkdir(parents=True)
    for file in (photographs / "train" / "good").iterdir():
        (root / "train" / "good" / file.name).write_bytes(file.read_bytes())
    for i, picture in enumerate(kit.striped(12, seed=9)):
        write_png(root / "train" / "good" / f"new{i}.png", picture)
    assert qat(tmp_path / "run", "--data", str(root)) == 2
    assert "was trained on 16 pictures" in kit.one_error(capsys)


def test_the_run_it_came_from_is_never_overwritten(
    qat: Qat, trained: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / checkpoint.CHECKPOINT_NAME).read_bytes()
    assert qat(trained) == 2
    assert qat(trained, "--resume") == 2
    assert qat(tuned, "--resume") == 2
    assert (trained / checkpoint.CHECKPOINT_NAME).read_bytes() == before
    errors = [e for e in capsys.readouterr().err.splitlines() if e.startswith("error:")]
    assert len(errors) == 3


def test_pictures_outside_the_train_split_are_never_opened(
    qat: Qat, tuned: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Read for their hash they are; decoded they are not."""
    from ndp_edge.data import folder

    read: set[str] = set()
    exact = folder.read_square

    def watched(path: Path, size: int) -> NDArray[np.uint8]:
        read.add(path.name)
        return exact(path, size)

    monkeypatch.setattr(folder, "read_square", watched)
    assert qat(tmp_path / "run", "--steps", "1") == 0
    assert len(read) == 16 == checkpoint.load(tuned).training["images"]
