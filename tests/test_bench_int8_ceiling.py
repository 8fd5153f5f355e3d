"""The chain that tells INT8's ceiling is the arithmetic it claims to time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from ndp_edge.bench import int8_ceiling


def test_the_chain_is_nothing_but_convolutions_of_one_size() -> None:
    model = int8_ceiling.chain(8, 12)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["Conv", "Relu"] * int8_ceiling.DEPTH
    (out,) = ReferenceEvaluator(model).run(None, {"x0": np.ones((1, 8, 12, 12), np.float32)})
    assert out.shape == (1, 8, 12, 12)
    assert np.isfinite(out).all()
    assert out.max() > 0


def test_it_reports_rates_and_their_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(int8_ceiling, "SHAPES", ((16, 16),))
    out = tmp_path / "ceiling.json"
    assert int8_ceiling.main(["--runs", "3", "--threads", "1", "--json", str(out)]) == 0
    (found,) = json.loads(out.read_text())["results"]
    assert found["gops"]["fp32"] > 0
    assert found["int8_over_fp32"]["q25"] <= found["int8_over_fp32"]["q75"]
    assert "16 x 16x16" in capsys.readouterr().out
