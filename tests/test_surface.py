"""The built-in surface: reproducible to the byte, exact masks, whole or not there."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_edge.data import surface
from ndp_edge.data.folder import load_images, load_masks, open_dataset
from ndp_edge.data.splits import split
from ndp_edge.data.surface import KINDS, builtin_root, draw, main, write_surface
from ndp_edge.data.surface_defects import SMALLEST, STRENGTHS, VISIBLE, damage, kinds_for
from ndp_edge.data.surface_textures import TEXTURES, band_noise, blur
from ndp_edge.errors import InputError
from ndp_edge.image import is_gray, read_image, read_marks

SMALL = {"train": 5, "good": 2, "defects": 5, "size": 64}


def tree(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_surface_is_a_data_set_that_opens_and_splits(tmp_path: Path, kind: str) -> None:
    root = write_surface(kind, tmp_path / "s", **SMALL)
    dataset = open_dataset(root, need_test=True)
    assert len(dataset.train) == 5
    assert sorted({s.kind for s in dataset.test}) == sorted([*kinds_for(kind), "good"])
    splits = split(dataset)
    assert len(splits.test) == 7
    masks = load_masks(dataset.test, 64)
    assert [bool(mask.any()) for mask in masks] == [s.label == 1 for s in dataset.test]
    assert all(is_gray(image) == (kind == "brushed") for image in load_images(dataset.train, 64))


def test_the_same_seed_draws_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    first = tree(write_surface("woven", tmp_path / "a", **SMALL))
    assert first == tree(write_surface("woven", tmp_path / "b", **SMALL))
    other = tree(write_surface("woven", tmp_path / "c", seed=1, **SMALL))
    assert not set(first.values()) & set(other.values())


def test_one_picture_alone_equals_the_one_in_the_folder(tmp_path: Path) -> None:
    root = write_surface("granular", tmp_path / "s", **SMALL)
    alone, mask, defect = draw("granular", 2, 3, size=64)
    assert np.array_equal(read_image(root / f"test/{defect}/003.png"), alone)
    assert mask is not None
    assert np.array_equal(read_marks(root / f"ground_truth/{defect}/003_mask.png"), mask)
    assert np.array_equal(
        read_image(root / "train/good/004.png"), draw("granular", 0, 4, size=64)[0]
    )


def test_processors_without_vector_units_draw_the_same_bytes() -> None:
    """Splits follow file hashes, so a file must not depend on the machine that drew it."""
    code = (
        "import hashlib; from ndp_edge.data.surface import KINDS, draw\n"
        "print([hashlib.sha256(draw(k, s, 0)[0].tobytes()).hexdigest() for k in KINDS"
        " for s in (0, 2)])"
    )
    plain = {
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX2 FMA3 AVX512F AVX512_SKX",
        "OPENBLAS_CORETYPE": "Prescott",
        "PYTHONWARNINGS": "ignore",
    }
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for extra in ({}, plain)
    ]
    assert len(outputs[0]) > 300
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("kind", KINDS)
def test_outside_the_mask_nothing_changed_and_inside_it_shows(kind: str) -> None:
    inner = 0
    for index, defect in enumerate(kinds_for(kind)):
        rng = np.random.default_rng([7, index])
        scene = TEXTURES[kind](rng, 256)
        good = scene.photograph(scene.clean)
        bad, mask = damage(rng, scene, defect, STRENGTHS[kind])
        change = np.abs(bad.astype(float) - good).max(axis=2)
        assert not change[~mask].any()
        assert change[mask].mean() > VISIBLE
        assert 2 * SMALLEST <= mask.sum() < 0.15 * mask.size
        # farther from the rim than the mean reaches, the definition can be checked again
        deep = cv2.erode(mask.astype(np.uint8), np.ones((9, 9)), borderValue=0) > 0
        assert (blur(change, 1.2)[deep] > VISIBLE).all()
        inner += int(deep.sum())
    assert inner > 100


@pytest.mark.parametrize("kind", KINDS)
def test_good_pictures_differ_from_each_other_but_share_their_light(kind: str) -> None:
    pictures = np.stack([draw(kind, 0, i)[0] for i in range(6)]).astype(float)
    means = pictures.mean(axis=(1, 2, 3))
    assert 60 < means.min() < means.max() < 200
    assert np.ptp(means) < 0.25 * means.mean()
    for first in range(6):
        for second in range(first):
            pair = np.corrcoef(pictures[first].ravel(), pictures[second].ravel())
            assert abs(pair[0, 1]) < 0.6
    clipped = np.mean((pictures == 0) | (pictures == 255))
    assert clipped < 0.001


def test_more_training_pictures_change_no_test_picture(tmp_path: Path) -> None:
    few = tree(write_surface("brushed", tmp_path / "a", **SMALL))
    more = tree(write_surface("brushed", tmp_path / "b", **{**SMALL, "train": 8}))
    assert {n: h for n, h in few.items() if n.endswith(".png")}.items() <= more.items()


@pytest.mark.parametrize(("x", "y"), [(0.5, 4.0), (3.0, 3.0), (40.0, 70.0)])
def test_band_noise_has_deviation_one_and_the_width_asked_for(x: float, y: float) -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([band_noise(rng, 128, x, y) for _ in range(60)])
    assert abs(fields.std() - 1) < 0.15
    if x == 3.0:  # white noise under a Gaussian of s: correlation exp(-d^2 / 4 s^2)
        lagged = np.mean(fields[:, :, 4:] * fields[:, :, :-4]) / fields.var()
        assert abs(lagged - np.exp(-16 / 36)) < 0.05


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/mine.txt").write_text("keep")
    with pytest.raises(InputError, match="exists already"):
        write_surface("woven", tmp_path / "s", **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("paper", {}), ("woven", {"train": -1}), ("woven", {"size": 32}), ("woven", {"seed": -1})],
)
def test_options_that_make_no_surface_are_refused(
    tmp_path: Path, kind: str, options: dict[str, int]
) -> None:
    with pytest.raises(InputError):
        write_surface(kind, tmp_path / "s", **options)
    assert not any(tmp_path.iterdir())


def test_a_failure_halfway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    assert main(["--out", str(tmp_path / "s"), "--train", "1", "--size", "64"]) == 2
    assert not any(tmp_path.iterdir())


def test_a_kill_leaves_no_surface_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    out = tmp_path / "s"
    code = [sys.executable, "-m", "ndp_edge.data.surface", "--out", str(out), "--train", "3000"]
    process = subprocess.Popen(code, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob(".s.*/train/good/*.png"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert len(list(tmp_path.iterdir())) == 1
    write_surface("woven", out, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NDP_EDGE_CACHE", str(tmp_path / "cache"))
    for name, value in SMALL.items():
        monkeypatch.setitem(surface._DEFAULT, name, value)
    return tmp_path / "cache"


def test_the_built_in_root_is_drawn_once_and_mended_when_thinned_out(cache: Path) -> None:
    root = builtin_root()
    assert root.parent == cache
    whole = tree(root)
    stamp = root.stat().st_mtime_ns
    assert builtin_root() == root
    assert root.stat().st_mtime_ns == stamp
    (root / "train/good/002.png").unlink()
    assert tree(builtin_root()) == whole
    cut = root / "test/good/000.png"
    cut.write_bytes(cut.read_bytes()[:-50])
    assert tree(builtin_root()) == whole
    assert [path.name for path in cache.iterdir()] == [root.name]


def test_the_cache_follows_xdg_and_says_when_it_cannot_be_written(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NDP_EDGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert builtin_root().parent == tmp_path / "xdg" / "ndp-edge"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NDP_EDGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="NDP_EDGE_CACHE"):
        builtin_root()


def test_the_command_draws_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--kind",
        "brushed",
        "--out",
        str(tmp_path / "s"),
        "--size",
        "64",
        "--train",
        "2",
        "--good",
        "1",
        "--defects",
        "1",
    ]
    assert main(options) == 0
    assert len(open_dataset(tmp_path / "s").test) == 2
    assert main(options) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "exists already" in lines[1]
