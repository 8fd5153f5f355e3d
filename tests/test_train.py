"""Training through its public door: two phases, resume to the same losses, what a run leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ndp_edge import checkpoint
from ndp_edge.image import write_png
from ndp_edge.train import main
from ndp_edge.training import perceptual as perceptual_room
from ndp_edge.training.options import TrainOptions

SMALL = ["--image-size", "64", "--batch-size", "2", "--perceptual", "none", "--threads", "1"]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 24 good pictures of 64x64, stripes in noise."""
    root = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    (root / "train" / "good").mkdir(parents=True)
    for i in range(24):
        wave = 120 + 40 * np.sin(np.arange(64) / 3 + rng.uniform(0, 6))
        picture = np.repeat((wave[None, :] + rng.normal(0, 6, (64, 64)))[..., None], 3, axis=2)
        write_png(root / "train" / "good" / f"{i:03}.png", picture.clip(0, 255).astype(np.uint8))
    return root


def _losses(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_checkpoint_metrics_and_samples(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["--data", str(photographs), "--out", str(out), "--steps", "3", "3", *SMALL]
    assert main([*arguments, "--sample-every", "2"]) == 0
    lines = _losses(out)
    assert [(e["phase"], e["step"]) for e in lines] == [(p, s) for p in (1, 2) for s in range(3)]
    assert {"rec", "def_per", "total"} <= set(lines[0])
    assert {"rec", "fea_rep", "seg", "total"} <= set(lines[-1])
    assert len(list((out / "samples").glob("*.png"))) == 2
    assert list((out / "tensorboard").glob("events*"))
    saved = checkpoint.load(out)
    assert saved.config.image_size == 64
    assert saved.config.gray
    assert saved.training["finished"]
    assert saved.training["perceptual"] == "none (asked for)"
    assert len(saved.training["hashes"]) == saved.training["images"] == 16
    assert np.abs(saved.weights["reference3"]).sum() > 0


def test_phase_two_freezes_the_encoder_and_its_statistics(
    photographs: Path, tmp_path: Path
) -> None:
    weights = []
    for steps in ("1", "3"):
        out = tmp_path / steps
        arguments = ["--data", str(photographs), "--out", str(out), "--steps", "2", steps, *SMALL]
        assert main(arguments) == 0
        weights.append(checkpoint.load(out).weights)
    changed = {k for k in weights[0] if not np.array_equal(weights[0][k], weights[1][k])}
    assert not {k for k in changed if k.startswith(("encoder.", "reference"))}
    assert {k.split(".")[0] for k in changed} == {"rbam", "decoder", "msdsm"}


FOUR_AND_FOUR = ["--steps", "4", "4", "--save-every", "2", "--ema", "0.5", *SMALL]


@pytest.fixture(scope="module")
def whole(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 + 4 steps that nobody killed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["--data", str(photographs), "--out", str(out), *FOUR_AND_FOUR]) == 0
    return out


@pytest.mark.parametrize("lines", [3, 6])
def test_killed_at_any_step_it_resumes_to_the_same_losses(
    photographs: Path, whole: Path, tmp_path: Path, lines: int
) -> None:
    """SIGKILL once `lines` steps are logged; state is saved every 2."""
    killed = tmp_path / "killed"
    arguments = ["--data", str(photographs), *FOUR_AND_FOUR]
    command = [sys.executable, "-m", "ndp_edge.train", *arguments, "--out", str(killed)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    log = killed / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.read_text().count("\n") >= lines:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    finished = (killed / checkpoint.CHECKPOINT_NAME).exists() and checkpoint.load(
        killed
    ).training.get("finished")
    assert main([*arguments, "--out", str(killed), "--resume"]) == (2 if finished else 0)
    assert _losses(killed) == _losses(whole)
    a, b = checkpoint.load(whole).weights, checkpoint.load(killed).weights
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_a_run_is_never_overwritten_nor_resumed_as_another(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["--data", str(photographs), "--out", str(out), *SMALL]
    assert main([*arguments, "--steps", "2", "1"]) == 0
    assert main([*arguments, "--steps", "2", "1"]) == 2
    assert "--resume" in capsys.readouterr().err
    (out / checkpoint.CHECKPOINT_NAME).unlink()
    assert main([*arguments, "--steps", "2", "5", "--resume"]) == 2
    assert "another run" in (error := capsys.readouterr().err) or "other options" in error
    (out / "state.safetensors").write_bytes(b"rubbish")
    assert main([*arguments, "--steps", "2", "1", "--resume"]) == 2
    assert "cannot resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["--data", "/nowhere"], "nowhere"),
        (["--steps", "0", "1"], "at least 1"),
        (["--image-size", "100"], "128"),
        (["--crop", "128"], "--crop"),
        (["--anomaly-source", "/nowhere"], "no such folder"),
        (["--vgg-weights", "/nowhere.pth", "--perceptual", "vgg16"], "VGG-16"),
    ],
)
def test_bad_options_get_one_line_and_exit_2(
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    told: str,
) -> None:
    out = tmp_path / "run"
    base = ["--data", str(photographs), "--steps", "1", "1", *SMALL]
    assert main([*base, *extra, "--out", str(out)]) == 2
    errors = [e for e in capsys.readouterr().err.splitlines() if e.startswith("error:")]
    assert len(errors) == 1
    assert told in errors[0]
    assert not (out / checkpoint.CHECKPOINT_NAME).exists()


def test_cosine_schedule_warms_up_and_comes_down() -> None:
    o = TrainOptions((100, 50), lr=1e-3, schedule="cosine")
    rates = [o.learning_rate(0, s) for s in range(100)]
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] < rates[2]
    assert rates[-1] < 2e-5
    assert TrainOptions((1, 1)).learning_rate(1, 0) == 1e-4


def _vgg_file(path: Path) -> Path:
    torch.manual_seed(0)
    state = {}
    for index, c_in, c_out in perceptual_room.CONVS:
        state[f"features.{index}.weight"] = torch.randn(c_out, c_in, 3, 3) * 0.05
        state[f"features.{index}.bias"] = torch.zeros(c_out)
    torch.save(state, path)
    return path


@pytest.mark.parametrize("layers", sorted(perceptual_room.LAYERS))
def test_perceptual_loss_reads_torchvisions_file(tmp_path: Path, layers: str) -> None:
    file = _vgg_file(tmp_path / "vgg16.pth")
    loss, told = perceptual_room.make_perceptual("auto", file, layers)
    assert loss is not None
    assert "vgg16.pth" in told
    image = torch.rand(1, 3, 64, 64)
    assert len(loss.maps(image)) == 5
    assert float(loss(image, image)) == 0
    other = torch.rand(1, 3, 64, 64, requires_grad=True)
    loss(image, other).backward()
    assert other.grad is not None
    assert float(other.grad.abs().sum()) > 0
    assert not [p for p in loss.parameters() if p.requires_grad]


def test_without_vgg_weights_training_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    loss, told = perceptual_room.make_perceptual("auto", None, "first5")
    assert loss is None
    assert "no VGG-16 weights" in told
    with pytest.raises(Exception, match="--vgg-weights"):
        perceptual_room.make_perceptual("vgg16", None, "first5")


def test_the_hub_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real loading code over a file of ours where torch's hub keeps its own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    _vgg_file(cache / "vgg16-397923af.pth")
    loss, told = perceptual_room.make_perceptual("vgg16", None, "first5")
    assert loss is not None
    assert "torch hub" in told


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04rubbish"])
def test_a_wrong_vgg_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "vgg.pth"
    file.write_bytes(content)
    with pytest.raises(Exception, match=r"vgg\.pth"):
        perceptual_room.make_perceptual("auto", file, "first5")
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    with pytest.raises(Exception, match="layer 0"):
        perceptual_room.make_perceptual("auto", file, "first5")


def test_bf16_trains_with_losses_near_those_of_float32(photographs: Path, tmp_path: Path) -> None:
    runs = {}
    for amp in ("none", "bf16"):
        out = tmp_path / amp
        options = [*SMALL, "--steps", "4", "4", "--amp", amp]
        assert main(["--data", str(photographs), "--out", str(out), *options]) == 0
        runs[amp] = _losses(out)
    for wide, narrow in zip(runs["none"], runs["bf16"], strict=True):
        assert narrow["total"] == pytest.approx(wide["total"], rel=0.05)
    assert runs["none"] != runs["bf16"]
    held = checkpoint.load(tmp_path / "bf16")
    assert {str(v.dtype) for v in held.weights.values()} <= {"float32", "int64"}


def test_a_recipe_fills_in_what_is_not_said() -> None:
    from ndp_edge.training.command import parser, read, read_options

    out = ["--out", "x"]
    plain = read(out)
    assert vars(plain) == vars(parser().parse_args(out))
    short = read_options(read([*out, "--recipe", "short"]), 100)
    assert (short.steps, short.batch_size, short.crop) == ((350, 750), 16, 128)
    own = read_options(
        read([*out, "--recipe", "short", "--epochs", "2", "1", "--lr", "0.5", "--crop", "64"]), 32
    )
    assert (own.steps, own.lr, own.crop, own.ema) == ((4, 2), 0.5, 64, 0.995)
    weights = [read([*out, *more]).map_weights for more in ([], ["--recipe", "short"])]
    assert weights == [(0.2, 0.2, 0.6), (1, 1, 1)]


def test_map_weights_are_the_nets(photographs: Path, tmp_path: Path) -> None:
    words = ["--data", str(photographs), "--steps", "1", "1", *SMALL, "--map-weights"]
    assert main([*words, "1", "1", "2", "--out", str(tmp_path / "run")]) == 0
    assert checkpoint.load(tmp_path / "run").config.map_weights == (0.25, 0.25, 0.5)
    assert main([*words, "0", "0", "0", "--out", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()
