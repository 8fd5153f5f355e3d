"""The running average of weights: its arithmetic, its state, and what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ndp_edge import checkpoint
from ndp_edge.data.surface import write_surface
from ndp_edge.train import main
from ndp_edge.training.averaging import Average

SMALL = ["--image-size", "64", "--batch-size", "2", "--threads", "1", "--perceptual", "none"]


def walk(net: nn.Module, step: int) -> None:
    torch.manual_seed(step)
    with torch.no_grad():
        for value in net.state_dict().values():
            value.add_(torch.randn_like(value) if value.is_floating_point() else 1)


def a_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_the_average_is_the_one_that_is_written_down() -> None:
    net, decay = a_net(), 0.7
    average = Average(net, decay)
    wanted: dict[str, torch.Tensor] = {}
    for step in range(30):
        walk(net, step)
        average.update(net)
        kept = min(decay, (1 + step) / (10 + step)) if wanted else 0.0
        for name, value in net.state_dict().items():
            past = wanted.get(name, value)
            whole = not value.is_floating_point()
            wanted[name] = value.clone() if whole else kept * past + (1 - kept) * value
    found = average.weights()
    assert found.keys() == net.state_dict().keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)


def test_restored_it_goes_on_as_if_nothing_had_happened() -> None:
    net = a_net()
    average = Average(net, 0.9)
    for step in range(5):
        walk(net, step)
        average.update(net)
    other = Average(a_net(), 0.9)
    other.restore({name: value.clone() for name, value in average.state().items()})
    walk(net, 5)
    for one in (average, other):
        one.update(net)
    for name, value in average.weights().items():
        assert torch.equal(value, other.weights()[name])


def test_a_run_ends_in_its_average_and_phase_2_begins_with_that_of_phase_1(
    tmp_path: Path,
) -> None:
    write_surface("woven", tmp_path / "data", train=8, good=0, defects=0, size=64)
    found = {}
    for decay in ("0", "0.5"):
        out = tmp_path / decay
        data = ["--data", str(tmp_path / "data"), "--out", str(out)]
        assert main([*data, "--steps", "3", "2", "--ema", decay, *SMALL]) == 0
        found[decay] = checkpoint.load(out)
        assert found[decay].training["options"]["ema"] == float(decay)
    lines = {d: (tmp_path / d / "metrics.jsonl").read_text().splitlines() for d in found}
    assert lines["0"][:3] == lines["0.5"][:3]  # the average does not touch the steps
    assert lines["0"][3:] != lines["0.5"][3:]
    plain, averaged = (found[d].weights for d in ("0", "0.5"))
    moved = {name for name in plain if not np.array_equal(plain[name], averaged[name])}
    assert any(name.startswith("encoder.") for name in moved)
    assert any(name.startswith("decoder.") for name in moved)


@pytest.mark.parametrize("decay", ["1", "-0.1", "nan"])
def test_decays_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], decay: str
) -> None:
    write_surface("woven", tmp_path / "data", train=8, good=0, defects=0, size=64)
    options = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--ema", decay]
    assert main([*options, *SMALL]) == 2
    assert "ema" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
