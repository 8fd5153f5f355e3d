"""The paper's losses against the equations written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge import losses


def _maps(seed: int, n: int = 2) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(seed)
    sizes = [(4, 32), (6, 16), (8, 8)]
    good = [torch.rand(n, c, s, s, dtype=torch.float64) for c, s in sizes]
    bad = [g + 0.3 * torch.rand_like(g) for g in good]
    mask = (torch.rand(n, 1, 32, 32, dtype=torch.float64) > 0.7).double()
    return good, bad, mask


@given(st.integers(0, 1000))
def test_defect_perception_is_equation_2(seed: int) -> None:
    good, bad, mask = _maps(seed)
    wanted = 0.0
    for g, b in zip(good, bad, strict=True):
        gap = ((g.numpy() - b.numpy()) ** 2).mean(axis=1)
        side = gap.shape[-1]
        step = 32 // side
        small = mask.numpy()[:, 0].reshape(2, side, step, side, step).mean(axis=(2, 4))
        low, high = gap.min(axis=(1, 2), keepdims=True), gap.max(axis=(1, 2), keepdims=True)
        wanted += (((gap - low) / (high - low) - small) ** 2).mean()
    assert float(losses.defect_perception(good, bad, mask)) == pytest.approx(wanted / 3, abs=1e-12)


def test_defect_perception_leaves_empty_masks_out() -> None:
    good, bad, mask = _maps(1)
    mask[1] = 0
    bad = [torch.cat([b[:1], g[1:]]) for g, b in zip(good, bad, strict=True)]
    alone = losses.defect_perception([g[:1] for g in good], [b[:1] for b in bad], mask[:1])
    assert float(losses.defect_perception(good, bad, mask)) == pytest.approx(float(alone))
    nothing = losses.defect_perception(good, good, torch.zeros_like(mask))
    assert float(nothing) == 0.0


def test_feature_repair_is_equation_9_with_its_printed_factor() -> None:
    good, bad, _ = _maps(2)
    wanted = sum(((g - b) ** 2).mean() for g, b in zip(good, bad, strict=True)) / 2
    assert float(losses.feature_repair(bad, good)) == pytest.approx(float(wanted))


@given(st.floats(-30, 30), st.sampled_from([0.0, 1.0]))
def test_focal_is_the_published_formula(logit: float, target: float) -> None:
    p = 1 / (1 + np.exp(-logit))
    p_t = p if target else 1 - p
    # log(p_t) from the logit, exact for large ones too
    log_p_t = -np.logaddexp(0, -logit if target else logit)
    found = losses.focal(torch.tensor([logit]).double(), torch.tensor([target]).double())
    assert float(found) == pytest.approx((1 - p_t) ** 2 * -log_p_t, rel=1e-6, abs=1e-12)


def test_a_thin_scratch_survives_in_the_deepest_target() -> None:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 17] = 1
    sure = [torch.full((1, 1, s, s), -20.0) for s in (32, 16, 8)]
    sure[2][..., 4] = 20.0  # column 17 of 32 is column 4 of 8
    sure[1][..., 8] = 20.0
    sure[0][..., 17] = 20.0
    assert float(losses.segmentation(sure, mask)) < 1e-6


def test_joint_weighs_reconstruction_a_hundredfold() -> None:
    parts = {k: torch.tensor(v) for k, v in {"rec": 0.01, "per": 0.5, "seg": 0.25}.items()}
    assert float(losses.joint(parts)) == pytest.approx(1.75)
