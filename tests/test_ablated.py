"""Nets that lack a part (Table VI): trained and judged by the public commands; the maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge import checkpoint, train
from ndp_edge.bench import ablated, torch_judge
from ndp_edge.bench.ablated import ABLATIONS
from ndp_edge.bench.ablated_maps import feature_residual, pixel_gap, ssim_gap
from ndp_edge.bench.ablated_net import net_without
from ndp_edge.data.surface import write_surface
from ndp_edge.model.config import preset

Map = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
TINY = ["--image-size", "64", "--batch-size", "2", "--threads", "1", "--perceptual", "none"]
TERMS = {
    "none": ({"rec", "def_per"}, {"rec", "fea_rep", "seg"}),
    "rbam": ({"rec", "def_per"}, {"rec", "seg"}),
    "def-per": ({"rec"}, {"rec", "fea_rep", "seg"}),
    **dict.fromkeys(
        ("pixel-gap", "msfr", "ssim"), ({"rec", "def_per"}, {"rec", "fea_rep"})
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def cloth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ablated") / "cloth"
    write_surface("woven", root, train=60, good=4, defects=5, size=64)
    return root


def words(cloth: Path, out: Path, *more: str) -> list[str]:
    return ["--data", str(cloth), "--out", str(out), "--steps", "2", "2", *TINY, *more]


def judged(run: Path, cloth: Path, file: Path) -> dict[str, Any]:
    told = [str(run), "--data", str(cloth), "--device", "cpu", "--json", str(file)]
    assert torch_judge.main(told) == 0
    report: dict[str, Any] = json.loads(file.read_text())
    return report


@pytest.mark.parametrize("lacks", ABLATIONS)
def test_a_variant_is_trained_and_judged(lacks: str, cloth: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    more = ["--ablate", lacks, "--sample-every", "1", "--amp", "bf16", "--device", "cpu"]
    assert ablated.main(words(cloth, out, *more)) == 0
    saved = checkpoint.load(out)
    assert (saved.training["ablation"], saved.training["finished"]) == (lacks, True)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    terms = [set(line) - {"phase", "step", "total"} for line in lines]
    first, second = TERMS[lacks]
    assert terms == [first, first, second, second]
    assert len(list((out / "samples").glob("*.png"))) == 2
    report = judged(out, cloth, tmp_path / "judged.json")
    assert report["ablation"] == lacks
    assert set(report["heads"]) == (set(torch_judge.HEADS) if lacks == "none" else set())
    parts = [report["test"]["fp32"], report["tune"]["fp32"]]
    parts += [figures for head in report["heads"].values() for figures in head.values()]
    for figures in parts:
        assert {"image_auroc", "pixel_auroc", "aupro"} <= set(figures)
        for key in set(figures) - {"threshold"}:
            assert 0 <= figures[key] <= 1, key
    # The rates follow from the scores that are kept.
    limit = report["test"]["fp32"]["threshold"]
    good = [one["score"] > limit for one in report["pictures"] if one["label"] == 0]
    assert report["test"]["fp32"]["false_reject_rate"] == np.mean(good)
    assert (len(good), len(report["pictures"])) == (4, 9)
    # 15 good pictures promise 1/16: the threshold is the highest of their scores.
    assert report["threshold_scores"][-1] == pytest.approx(limit)


def test_nothing_left_out_is_the_very_training_of_the_package(cloth: Path, tmp_path: Path) -> None:
    assert train.main(words(cloth, tmp_path / "a")) == 0
    assert ablated.main(words(cloth, tmp_path / "b", "--ablate", "none")) == 0
    plain, whole = (checkpoint.load(tmp_path / name).weights for name in "ab")
    assert plain.keys() == whole.keys()
    for name, values in plain.items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)


def test_the_judge_finds_what_a_build_would(cloth: Path, tmp_path: Path) -> None:
    """Through the exported graph and its engine, picture by picture."""
    from ndp_edge.build_inputs import load_dataset
    from ndp_edge.data.folder import load_images
    from ndp_edge.engines import open_engine
    from ndp_edge.export.exporter import export_onnx
    from ndp_edge.scoring import answer

    assert train.main(words(cloth, tmp_path / "run")) == 0
    report = judged(tmp_path / "run", cloth, tmp_path / "judged.json")
    export_onnx(tmp_path / "run", tmp_path / "net.onnx", images=None, check=False)
    images = load_images(load_dataset(cloth).test, 64)
    with open_engine("onnxruntime", tmp_path / "net.onnx", precision="fp32") as engine:
        scores = answer({"fp32": engine}, images, "test")["fp32"].scores
    found = [one["score"] for one in report["pictures"]]
    np.testing.assert_allclose(found, scores, atol=2e-5)


def test_a_surface_without_a_test_folder_has_tune_figures(cloth: Path, tmp_path: Path) -> None:
    import shutil

    bare, out = tmp_path / "bare", tmp_path / "run"
    shutil.copytree(cloth / "train", bare / "train")
    assert ablated.main(words(bare, out, "--ablate", "ssim")) == 0
    report = judged(out, bare, tmp_path / "judged.json")
    assert (report["test"], report["pictures"]) == ({}, [])
    assert 0 <= report["tune"]["fp32"]["aupro"] <= 1


def test_what_is_refused(cloth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert ablated.main(["--out", str(out), "--qat", "x", "--ablate", "ssim"]) == 2
    assert "--qat" in capsys.readouterr().err
    assert torch_judge.main([str(out)]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    # A state belongs to one ablation.
    assert ablated.main(words(cloth, out, "--ablate", "rbam")) == 0
    (out / checkpoint.CHECKPOINT_NAME).unlink()
    assert ablated.main(words(cloth, out, "--ablate", "ssim", "--resume")) == 2
    assert "other options" in capsys.readouterr().err


def test_without_rbam_the_decoder_sees_the_encoders_features() -> None:
    config = preset("nano", image_size=64)
    torch.manual_seed(0)
    net, image = net_without("rbam", config).eval(), torch.rand(2, 3, 64, 64)
    net.set_reference(torch.rand(1, 3, 64, 64))
    with torch.inference_mode():
        out = net.analyse(image)
        for a, b in zip(out.repaired, net.encoder(image)[2:], strict=True):
            assert torch.equal(a, b)
        assert torch.equal(out.reconstruction, net.decoder(*out.features[2:]))
        whole = net_without("none", config).eval()
        whole.load_state_dict(net.state_dict())
        assert not torch.equal(whole.analyse(image).reconstruction, out.reconstruction)


def _residual(image: torch.Tensor, rebuilt: torch.Tensor) -> torch.Tensor:
    """MSFR with means over 1, 2 and 4 pixels for an encoder."""
    halves = [[torch.nn.functional.avg_pool2d(x, k) for k in (1, 2, 4)] for x in (image, rebuilt)]
    return feature_residual(*halves)


MAPS: dict[str, Map] = {"pixel-gap": pixel_gap, "msfr": _residual, "ssim": ssim_gap}


@pytest.mark.parametrize("name", MAPS)
@given(seed=st.integers(0, 99), high=st.sampled_from([32, 48, 64]), n=st.integers(1, 3))
def test_equal_pictures_differ_nowhere_and_a_square_where_it_is(
    name: str, seed: int, high: int, n: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(n, 3, high, 64, generator=generator)
    same = MAPS[name](image, image.clone())
    assert same.shape == (n, 1, high, 64)
    torch.testing.assert_close(same, torch.zeros_like(same), atol=1e-5, rtol=0)
    changed = image.clone()
    changed[:, :, 8:20, 24:40] = 1 - changed[:, :, 8:20, 24:40]
    found = MAPS[name](image, changed)
    assert found.min() >= 0
    assert found.max() <= {"pixel-gap": 1, "msfr": 3, "ssim": 2}[name]
    inside = torch.zeros_like(found, dtype=torch.bool)
    inside[..., 8:20, 24:40] = True
    assert found[inside].mean() > 10 * found[~inside].mean()
    far = found[..., :, 48:]  # beyond any window
    torch.testing.assert_close(far, torch.zeros_like(far), atol=1e-5, rtol=0)


def test_ssim_is_the_known_formula() -> None:
    """Against a double loop over windows in float64."""
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 16, 16))
    at = np.arange(11) - 5
    line = np.exp(-(at**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    px, py = (np.pad(one, 5, mode="reflect") for one in (x, y))
    wanted = np.empty((16, 16))
    for i in range(16):
        for j in range(16):
            a, b = px[i : i + 11, j : j + 11], py[i : i + 11, j : j + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            wanted[i, j] = ((2 * ma * mb + 1e-4) * (2 * cov + 9e-4)) / (
                (ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)
            )
    gray = [torch.from_numpy(one.astype(np.float32)).expand(1, 3, 16, 16) for one in (x, y)]
    found = ssim_gap(*gray)[0, 0].numpy()
    np.testing.assert_allclose(found, 1 - wanted, atol=2e-5)


@pytest.mark.parametrize("lacks", ["pixel-gap", "msfr", "ssim"])
def test_a_formula_in_msdsms_place(lacks: str) -> None:
    """No defect map where the net rebuilds exactly what it was given; elsewhere there is one."""
    from ndp_edge.bench.ablated_net import Compared
    from ndp_edge.model.network import Output

    torch.manual_seed(0)
    net = net_without(lacks, preset("nano", image_size=64)).eval()
    assert isinstance(net, Compared)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        out = net.analyse(image)
        exact = Output([], image, out.repaired, out.features)
        nothing = net.difference(image, exact)
        torch.testing.assert_close(nothing, torch.zeros_like(nothing), atol=1e-5, rtol=0)
        assert net(image).shape == (1, 1, 64, 64)
        assert net(image).mean() > 0
