"""DRAEM trained here: its losses, a whole small run, and its accuracy beside ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ndp_edge.bench import peers, tables  # noqa: E402
from ndp_edge.bench.peers import draem, draem_train  # noqa: E402
from ndp_edge.data.surface import write_surface  # noqa: E402
from ndp_edge.errors import InputError  # noqa: E402


class Small(draem.Draem):
    """The same at a sixteenth of the width."""

    def __init__(self) -> None:
        super().__init__(8)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small layers on several threads wait for each other, on a busy machine for long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_ssim_is_the_printed_formula() -> None:
    image = torch.rand(2, 3, 40, 40)
    assert float(draem_train.ssim(image, image)) == pytest.approx(1, abs=1e-5)
    assert float(draem_train.ssim(image, torch.rand(2, 3, 40, 40))) < 0.3
    # Of two flat pictures only the first factor is left; the border sees zeros, so it is cut off.
    a, b = torch.full((1, 3, 64, 64), 0.2), torch.full((1, 3, 64, 64), 0.6)
    inner = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert float(draem_train.ssim(a, b)) == pytest.approx(inner, abs=0.08)


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    net = Small().train()
    good = torch.rand(2, 3, 64, 64)
    mask = torch.zeros(2, 1, 64, 64)
    mask[:, :, 20:40, 20:40] = 1
    bad = torch.where(mask > 0, 1 - good, good)
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    losses = []
    for _ in range(8):
        loss = draem_train.loss_of(net, good, bad, mask, bf16=True)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second of training a small DRAEM on a small surface."""
    monkeypatch.setattr(draem_train, "Draem", Small)
    monkeypatch.setattr(draem, "Draem", Small)
    photos, out = tmp_path / "photos", tmp_path / "run"
    write_surface("woven", photos, train=12, good=2, defects=1)
    words = ["--data", str(photos), "--out", str(out), "--minutes", "0.01"]
    assert draem_train.main(words) == 0
    assert draem_train.main(words) == 2  # --out holds a run
    return out


def test_a_run_tells_its_budget_and_is_read_again(run: Path) -> None:
    told = json.loads((run / peers.DRAEM_REPORT).read_text("utf-8"))
    assert told["training"]["steps"] >= 1
    assert all(0 <= told["metrics"][k] <= 1 for k in ("image_auroc", "pixel_auroc", "aupro"))
    assert peers.read_draem(run, told["pictures"]) == told
    note = peers.draem_note(told)
    assert f"{told['training']['steps']} steps" in note
    assert "0.01 minutes" in note
    state = draem.load_draem(run / peers.DRAEM_WEIGHTS).state_dict()
    fresh = Small().state_dict()
    assert state.keys() == fresh.keys()
    with pytest.raises(InputError, match="other pictures"):
        peers.read_draem(run, "another digest")
    (run / peers.DRAEM_WEIGHTS).write_bytes(b"cut off")
    with pytest.raises(InputError, match="no weights"):
        draem.load_draem(run / peers.DRAEM_WEIGHTS)


def told(**changes: Any) -> dict[str, Any]:
    training = {"minutes": 25.0, "threads": 1, "steps": 300, "batch_size": 4}
    metrics = {"image_auroc": 0.5, "pixel_auroc": 0.6, "aupro": 0.7}
    found = {"kind": peers.DRAEM_KIND, "pictures": "p", "training": training, "metrics": metrics}
    return found | changes


def test_what_the_pictures_could_not_tell_is_no_damage(tmp_path: Path) -> None:
    found = told(metrics={"image_auroc": 0.5, "pixel_auroc": None, "aupro": None})
    (tmp_path / peers.DRAEM_REPORT).write_text(json.dumps(found), "utf-8")
    assert peers.read_draem(tmp_path, "p") == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps(told(kind="other")),
        json.dumps(told(metrics={"aupro": 7})),
        json.dumps(told(training={"minutes": 1})),
        json.dumps(told(pictures=None)),
    ],
)
def test_what_is_no_run_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="draem_train"):
        peers.read_draem(tmp_path, "p")
    (tmp_path / peers.DRAEM_REPORT).write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"draem\.json"):
        peers.read_draem(tmp_path, "p")


def row(name: str, backend: str, precision: str) -> dict[str, Any]:
    figures = {"p50": 9.0, "p95": 9.0, "p99": 9.0}
    return {
        "name": name, "label": name, "backend": backend, "precision": precision, "batch": 1,
        "latency_ms": figures, "ms_interval": {"low": 8.0, "high": 10.0}, "faster_than": {},
        "stages_ms": dict.fromkeys(("prepare", "infer", "judge"), figures),
    }  # fmt: skip


def test_accuracy_stands_beside_latency_only_where_it_was_measured() -> None:
    metrics = {"int8": {"image_auroc": 0.91, "pixel_auroc": 0.92, "aupro": None}}
    names = [
        ("openvino-int8", "openvino", "int8"),
        ("onnxruntime-int8", "onnxruntime", "int8"),
        ("torch-fp32", "torch", "fp32"),
        ("draem/openvino-fp32", "openvino", "fp32"),
        ("stfpm/openvino-fp32", "openvino", "fp32"),
    ]
    report = {
        "accuracy": {"backend": "openvino", "metrics": metrics},
        "rows": [row(*one) for one in names],
        "energy": "not told",
    }
    peers.add_accuracy(report, told())
    head, *lines = tables.short_rows(report)
    assert head == ["engine", "ms p50", "95 %", "image AUROC", "pixel AUROC", "AUPRO"]
    shown = {line[0]: line[3:] for line in lines}
    assert shown == {
        "openvino-int8": ["0.9100", "0.9200", "-"],
        "onnxruntime-int8": ["-", "-", "-"],
        "torch-fp32": ["-", "-", "-"],
        "draem/openvino-fp32": ["0.5000", "0.6000", "0.7000"],
        "stfpm/openvino-fp32": ["-", "-", "-"],
    }
    for line in report["rows"]:
        line.pop("accuracy", None)
    peers.add_accuracy(report, None)
    assert "accuracy" not in report["rows"][3]
