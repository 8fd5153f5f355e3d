"""What builds are tested with: a small surface, a tiny net, and one bundle built of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch

from ndp_edge import build, checkpoint
from ndp_edge.calib.partial import groups
from ndp_edge.data.folder import load_images, open_dataset
from ndp_edge.data.splits import split
from ndp_edge.data.surface import write_surface
from ndp_edge.export.exporter import export_onnx
from ndp_edge.export.graph import build_graph
from ndp_edge.model.config import NdpConfig
from ndp_edge.model.network import NDPNet
from ndp_edge.training.batches import Batches
from ndp_edge.training.loop import Run, Trainer
from ndp_edge.training.options import TrainOptions

CONFIG = NdpConfig("tiny", (8, 8, 8, 8, 8), 8, image_size=64)
QUIET = ["--engine", "onnxruntime", "--max-drop", "0.9"]
"""ONNX Runtime starts fastest; a net with random weights passes only a wide gate."""

STEPS = (40, 160)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "surface"
    write_surface("woven", root, train=60, good=4, defects=5, size=64)
    return root


def make_net(path: Path, **training: Any) -> Path:
    """A fresh tiny net as ONNX; `training` goes into its metadata."""
    torch.manual_seed(0)
    net = NDPNet(CONFIG).eval()
    net.set_reference(torch.rand(1, 3, 64, 64))
    weights = {k: v.numpy() for k, v in net.state_dict().items()}
    onnx.save(build_graph(checkpoint.Checkpoint(CONFIG, weights, training)), path)
    return path


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    splits = split(open_dataset(data), seed=3)
    hashes = sorted(splits.hashes[s.name] for s in splits.train)
    return make_net(tmp_path_factory.mktemp("net") / "tiny.onnx", split_seed=3, hashes=hashes)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, net: Path, data: Path) -> Path:
    out = tmp_path_factory.mktemp("built") / "bundle"
    assert run(net, data, out, "--int8") == 0
    return out


@pytest.fixture(scope="session")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Larger than `data`: enough pictures for a gate and for a tune split."""
    root = tmp_path_factory.mktemp("trained") / "surface"
    write_surface("woven", root, train=100, good=12, defects=15, size=64)
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, surface: Path) -> Path:
    """A tiny net trained for some seconds, as ONNX: it finds most defects, so that it has something
    to lose. A fresh one guesses, whatever its precision."""
    splits = split(open_dataset(surface))
    images = load_images(splits.train, 64)
    options = TrainOptions(STEPS, lr=4e-3, schedule="cosine", crop=64, opacity=(0.5, 1.0))
    hashes = sorted(splits.hashes[s.name] for s in splits.train)
    folder = tmp_path_factory.mktemp("net")
    (folder / "samples").mkdir()
    batches = Batches(images, [], options, gray=False)
    record = {"split_seed": 0, "hashes": hashes}
    run = Run(folder, CONFIG, options, batches, images[0], None, "test", record)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small are slower on two
    try:
        Trainer(run, resume=False).train()
    finally:
        torch.set_num_threads(before)
    export_onnx(folder, folder / "net.onnx", images=images[:1], check=False)
    return folder / "net.onnx"


FEW = ("decoder.step3.mix1", "msdsm1.cat", "rbam4.u")


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A way back over three layers of fifty: the others cost seconds and show nothing more."""
    monkeypatch.setattr(
        "ndp_edge.calib.sensitivity.groups",
        lambda model: [group for group in groups(model) if group.name in FEW],
    )
    return FEW


def run(net: Path, data: Path, out: Path, *options: str) -> int:
    return build.main(
        ["--checkpoint", str(net), "--data", str(data), "--out", str(out), *QUIET, *options]
    )


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "".join(lines)
    return [line for line in lines if line.startswith("error: ")]


def refused_with(words: str, capsys: pytest.CaptureFixture[str], out: Path) -> None:
    lines = errors(capsys)
    assert len(lines) == 1
    assert words in lines[0]
    assert not out.exists()
    assert not list(out.parent.glob(".*"))


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The functions above, for test files that cannot import this one."""
    return SimpleNamespace(
        CONFIG=CONFIG,
        QUIET=QUIET,
        make_net=make_net,
        run=run,
        errors=errors,
        refused_with=refused_with,
    )
