"""The report's blocks about GPUs and trainings say what their files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ndp_edge.bench.block import NOTHING
from ndp_edge.bench.blocks import marked_blocks
from ndp_edge.bench.saved import read_results


def blocks(folder: Path, **files: Any) -> dict[str, Any]:
    for name, data in files.items():
        (folder / f"{name}.json").write_text(json.dumps(data))
    return marked_blocks(read_results(folder))


def card(device: str, met: bool) -> dict[str, Any]:
    kernel = dict.fromkeys(
        ("decomposed_graph_us", "decomposed_graph_reference_prepared_us", "decomposed_eager_us",
         "compiled_us", "floor_us", "times_faster_than_graph"), "not measured",
    )  # fmt: skip
    net = {"with_kernels_ms": 1.25, "decomposed_ms": 2.5, "eager_ms": 9.0}
    return {
        "device": device, "torch": "2", "driver": "580", "date": "2026-01-02",
        "sanitizer": {}, "checks": [{"passed": True}, {"passed": False}, {"passed": None}],
        "timings": [
            {"name": "rates", "measured": {"copy_gb_per_s": 2701.0, "matmul_tflop_per_s": 673.1}},
            {"name": "rbfrm", "batch": 1, "channels": 8, "side": 64,
             "measured": kernel | {"kernel_us": 49.625}},
            {"name": "network", "preset": "nano", "side": 256,
             "measured": net | {"times_faster_than_decomposed": 2.0}},
        ],
        "targets": [{"target": "speed", "wanted": "at least 3", "value": 2.5, "met": met}],
    }  # fmt: skip


def test_a_card_has_its_kernels_nets_and_targets(tmp_path: Path) -> None:
    found = blocks(tmp_path, gpu_a=card("A", False))
    assert "| rbfrm 1x8x64 | 49.62 | not measured |" in found["gpu-kernels"].markdown
    assert "673 TFLOP/s" in found["gpu-kernels"].markdown
    assert "| nano 256x256 | 1.25 | 2.5 | 9 | 2 |" in found["gpu-nets"].markdown
    targets = found["gpu-targets"].markdown
    assert "| speed | at least 3 | 2.5 | MISSED |" in targets
    assert "1 of 3 checks" in targets


def test_two_cards_are_told_apart(tmp_path: Path) -> None:
    found = blocks(tmp_path, gpu_a=card("A", True), gpu_b=card("B", False))
    rows = found["gpu-targets"].rows
    assert [row[0] for row in rows] == ["", "A", "B"]
    assert len({len(row) for row in rows}) == 1


def test_without_files_nothing_was_measured(tmp_path: Path) -> None:
    found = blocks(tmp_path, other={"rows": []})
    for name in ("gpu-kernels", "gpu-nets", "gpu-targets", "train-speed"):
        assert found[name].markdown == NOTHING


def training(recipe: str, seed: int, image: float) -> dict[str, Any]:
    areas = {"image_auroc": image, "pixel_auroc": 0.5, "aupro": 0.25}
    return {"recipe": recipe, "seed": seed, "device": "A", "test": {"fp32": areas},
            "tune": {"fp32": areas}}  # fmt: skip


def test_differences_are_from_the_whole_net_of_the_same_seed(tmp_path: Path) -> None:
    whole, part = "A whole net", "F SSIM for MSDSM"
    cells = [training(whole, 0, 0.9), training(whole, 1, 0.7), training(part, 1, 0.6)]
    figure = {"mean": 0.6, "low": 0.6, "high": 0.6, "n": 1}
    row = {"surface": "s", "preset": "nano", "seeds": [1], "tune": {}, "heads": {}}
    rows = [row | {"recipe": one, "test": {"fp32": {"aupro": figure}}} for one in (whole, part)]
    found = blocks(tmp_path, t={"date": "2026-01-02", "rows": rows, "cells": cells})
    assert found["t"].rows[2][:6] == [f"s, nano, {part}", "1", "-", "-", "0.6000", "-"]
    (head, line) = found["t-against"].rows
    assert head[-1] == "the paper: image / pixel"
    assert line[0] == part
    assert line[1].startswith("-10.00 (")
    assert line[2].startswith("+0.00 (")
    assert line[-1] == "-8.59 / -11.19"
    assert "t-heads" not in found


@pytest.mark.parametrize("threads", [1, 4])
def test_training_speed_names_its_device(tmp_path: Path, threads: int) -> None:
    told = {
        "device": "A", "machine": {"cpu": "C"}, "torch": "2", "threads": threads, "crop": 128,
        "date": "2026-01-02", "batch_size": 4,
        "rows": [{"preset": "nano", "way": "graph", "images_per_s": [1314.4, 951.6]}],
    }  # fmt: skip
    found = blocks(tmp_path, speed=told)["train-speed"]
    assert found.rows[1] == ["A", "nano", "4", "graph", "1314", "952"]
    assert f"{threads} thread" in found.notes[0]
