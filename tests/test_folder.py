"""MVTec-style folders: what is listed, what is ignored, what is refused and how it is said."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from ndp_edge.data.folder import load_images, load_masks, open_dataset
from ndp_edge.errors import InputError
from ndp_edge.files import file_hash
from ndp_edge.image import write_png


def picture(path: Path, size: int = 16, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((size, size, 3), value, np.uint8))
    return path


def marked(path: Path, size: int = 16, rows: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((size, size), np.bool_)
    mask[:rows] = True
    write_png(path, mask)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for index in (2, 0, 1):
        picture(tmp_path / f"train/good/{index:03d}.png", value=index)
    picture(tmp_path / "test/good/000.png", value=50)
    picture(tmp_path / "test/crack/000.png", value=60)
    picture(tmp_path / "test/blot/007.png", value=70)
    marked(tmp_path / "ground_truth/crack/000_mask.png")
    marked(tmp_path / "ground_truth/blot/007.png", rows=2)
    return tmp_path


def test_samples_are_sorted_labelled_and_named(root: Path) -> None:
    dataset = open_dataset(root)
    assert [sample.name for sample in dataset.train] == [f"train/good/00{i}.png" for i in range(3)]
    assert [(s.name, s.label, s.kind) for s in dataset.test] == [
        ("test/blot/007.png", 1, "blot"),
        ("test/crack/000.png", 1, "crack"),
        ("test/good/000.png", 0, "good"),
    ]
    assert [s.mask and s.mask.name for s in dataset.test] == ["007.png", "000_mask.png", None]


def test_every_suffix_in_any_case_counts_and_the_rest_is_ignored(root: Path) -> None:
    good = root / "train/good"
    raw = picture(good / "100.png", value=100).read_bytes()
    for name in ("a.PNG", "b.Jpg", "c.jpeg", "d.bmp", "e.tif", "f.TIFF", "g.webp"):
        (good / name).write_bytes(raw + name.encode())
    for name in (".hidden.png", "Thumbs.db", "notes.txt", "h.png.part", "noending"):
        (good / name).write_bytes(raw)
    (good / "folder.png").mkdir()
    picture(root / "test/.cache/000.png")
    names = [sample.path.name for sample in open_dataset(root).train]
    assert names == [
        "000.png",
        "001.png",
        "002.png",
        "100.png",
        "a.PNG",
        "b.Jpg",
        "c.jpeg",
        "d.bmp",
        "e.tif",
        "f.TIFF",
        "g.webp",
    ]
    assert len(open_dataset(root).test) == 3


def test_pictures_and_masks_load_in_order(root: Path) -> None:
    dataset = open_dataset(root)
    assert load_images(dataset.train, 16)[:, 0, 0, 0].tolist() == [0, 1, 2]
    masks = load_masks(dataset.test, 16)
    assert masks.dtype == np.bool_
    assert masks.sum(axis=(1, 2)).tolist() == [32, 64, 0]
    assert load_images([], 16).shape == (0, 16, 16, 3)


def test_a_train_folder_alone_is_enough_unless_a_test_is_needed(tmp_path: Path) -> None:
    picture(tmp_path / "train/good/0.png")
    assert open_dataset(tmp_path).test == []
    with pytest.raises(InputError, match="test"):
        open_dataset(tmp_path, need_test=True)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_dataset(tmp_path / "none")
    with pytest.raises(InputError, match=r"no folder train/good"):
        open_dataset(tmp_path)
    (tmp_path / "train/good").mkdir(parents=True)
    (tmp_path / "train/good/readme.txt").write_text("nothing")
    with pytest.raises(InputError, match=r"holds no pictures.*\.png"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        open_dataset(tmp_path / "train/good/readme.txt")


def test_a_defect_without_a_mask_names_the_mask_expected(root: Path) -> None:
    (root / "ground_truth/crack/000_mask.png").unlink()
    with pytest.raises(InputError, match=r"crack/000\.png: has no mask.*crack/000_mask\.png"):
        open_dataset(root)


def test_a_mask_of_another_size_says_both_sizes(root: Path) -> None:
    marked(root / "ground_truth/crack/000_mask.png", size=20)
    with pytest.raises(InputError, match=r"20x20.*000\.png has 16x16"):
        open_dataset(root)


def test_a_mask_that_marks_nothing_is_refused(root: Path) -> None:
    marked(root / "ground_truth/crack/000_mask.png", rows=0)
    with pytest.raises(InputError, match="marks no pixel"):
        open_dataset(root)


def test_a_broken_training_picture_is_named_when_loaded(root: Path) -> None:
    bad = root / "train/good/001.png"
    bad.write_bytes(bad.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"001\.png.*truncated"):
        load_images(open_dataset(root).train, 16)


def test_file_hash_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 3_000_000)
    assert file_hash(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    with pytest.raises(InputError, match="cannot be read"):
        file_hash(tmp_path / "none")


def test_the_real_sets_open(real_data: Path) -> None:
    for name, train, test in (("kolektor_sdd", 600, 170), ("dagm_class1", 404, 171)):
        dataset = open_dataset(real_data / name, need_test=True)
        assert (len(dataset.train), len(dataset.test)) == (train, test)
        some = dataset.test[::40]
        masks = load_masks(some, 256)
        assert [bool(mask.any()) for mask in masks] == [s.label == 1 for s in some]
