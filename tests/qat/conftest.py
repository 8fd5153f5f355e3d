"""Fine-tuning for INT8: a tiny net, photographs, and runs on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ndp_edge import checkpoint
from ndp_edge.image import write_png
from ndp_edge.model.config import NdpConfig
from ndp_edge.model.network import NDPNet
from ndp_edge.train import main

SIDE = 64
KILLED = ["--steps", "8", "--save-every", "3"]
SMALL = ["--batch-size", "2", "--threads", "1"]
TRAIN = [*SMALL, "--image-size", str(SIDE), "--perceptual", "none"]


def striped(count: int, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    waves = np.sin(np.arange(SIDE) / 3 + rng.uniform(0, 6, (count, 1)))[:, None, :, None]
    noise = rng.normal(0, 6, (count, SIDE, SIDE, 1))
    return np.repeat(120 + 40 * waves + noise, 3, axis=3).clip(0, 255).astype(np.uint8)


def as_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    # Times 1/255 as the graph does; a division may round to the neighbour.
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() * np.float32(1 / 255)


def lively(config: NdpConfig) -> NDPNet:
    """Random weights (of a seed that leaves no head dead), and maps that use their whole range."""
    torch.manual_seed(5)
    net, images = NDPNet(config), as_tensor(striped(4))
    with torch.no_grad():
        for _ in range(5):
            net(images)  # in training mode: fills the batch norms' statistics
        net.eval().set_reference(images[:1])
        for head, logits in zip(net.msdsm.heads, net.analyse(images).logits, strict=True):
            head.to_map.weight.div_(logits.std())
            head.to_map.bias.sub_(logits.mean()).div_(logits.std())
    return net.requires_grad_(False)


@pytest.fixture(scope="session")
def net() -> NDPNet:
    """Always the same to the last bit: sums depend on the number of threads, and where a folded
    weight lies half-way between two codes, torch (float32) and export (float64) may take either."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        return lively(NdpConfig("tiny", (8, 8, 16, 16, 16), 8, image_size=SIDE))
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stripes")
    (root / "train" / "good").mkdir(parents=True)
    for i, picture in enumerate(striped(24)):
        write_png(root / "train" / "good" / f"{i:03}.png", picture)
    return root


@pytest.fixture(scope="session")
def trained(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `train`, given weights whose maps are not flat as after two steps."""
    out = tmp_path_factory.mktemp("trained") / "run"
    assert main(["--data", str(photographs), "--out", str(out), "--steps", "1", "1", *TRAIN]) == 0
    found = checkpoint.load(out)
    small = NdpConfig("tiny", (8, 8, 16, 16, 16), 8, image_size=SIDE, gray=found.config.gray)
    weights = {name: value.numpy() for name, value in lively(small).state_dict().items()}
    file = out / checkpoint.CHECKPOINT_NAME
    checkpoint.save(file, checkpoint.Checkpoint(small, weights, found.training))
    return out


Qat = Callable[..., int]


@pytest.fixture(scope="session")
def qat(photographs: Path, trained: Path) -> Qat:
    """`train --qat` on them, with what is given added."""

    def run(out: Path, *extra: str) -> int:
        base = ["--qat", str(trained), "--data", str(photographs), "--out", str(out), *SMALL]
        return main([*base, *extra])

    return run


@pytest.fixture(scope="session")
def tuned(qat: Qat, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "run"
    assert qat(out, "--steps", "30", "--lr", "1e-4", "--sample-every", "15") == 0
    return out


def losses(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The line that a refusal ends with; there must be just one."""
    errors = [e for e in capsys.readouterr().err.splitlines() if e.startswith("error:")]
    assert len(errors) == 1
    return errors[0]


@pytest.fixture(scope="session")
def whole(qat: Qat, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert qat(out, *KILLED) == 0
    return out


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The functions above, for test files that cannot import this one."""
    return SimpleNamespace(
        striped=striped, as_tensor=as_tensor, lively=lively, losses=losses, one_error=one_error
    )
