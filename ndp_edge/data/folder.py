"""A folder of photographs in MVTec layout: train/good, test/<kind>, ground_truth/<kind>."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ndp_edge.errors import InputError
from ndp_edge.image import SUFFIXES, is_image_name, read_image, read_marks, read_mask, read_square

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """One picture: its file, its name (posix path below the root), label 0 good or 1 defect,
    kind (its folder: "good", "crack", ...) and the mask file (None for good)."""

    path: Path
    name: str
    label: int
    kind: str
    mask: Path | None


@dataclass(frozen=True)
class Dataset:
    """The pictures below root, both lists sorted by name; train holds good ones only."""

    root: Path
    train: list[Sample]
    test: list[Sample]


def open_dataset(root: Path | str, *, need_test: bool = False) -> Dataset:
    """List an MVTec-style folder and check that masks fit; no good picture is decoded yet.

    Layout: train/good/*.png, test/good/*.png, test/<kind>/*.png with masks at
    ground_truth/<kind>/<stem>_mask.png (or <stem>.png). Other files and hidden ones are ignored.
    test may be absent unless need_test.

    Raises InputError: root or train/good missing or empty; a defect picture without a mask, or
    with an empty one, or one of another size; test missing or empty where need_test.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder that holds train/good")
    good = root / "train" / GOOD
    if not good.is_dir():
        raise InputError(f"{root}: has no folder train/good; put the good photographs there")
    train = [_sample(root, path, GOOD) for path in _images(good)]
    if not train:
        raise InputError(
            f"{good}: holds no pictures ({' '.join(SUFFIXES)}); put the good photographs there"
        )
    test = _test_samples(root)
    if need_test and not test:
        raise InputError(
            f"{root}: has no pictures in test/<kind>; put good ones into test/good and defects "
            f"into test/<kind> with masks in ground_truth/<kind>"
        )
    return Dataset(root=root, train=train, test=test)


def load_images(samples: Sequence[Sample], size: int) -> NDArray[np.uint8]:
    """The pictures of samples in order, uint8 [N, size, size, 3] RGB.

    Raises InputError, naming the file, as ndp_edge.image.read_square does.
    """
    images = np.empty((len(samples), size, size, 3), np.uint8)
    for index, sample in enumerate(samples):
        images[index] = read_square(sample.path, size)
    return images


def load_masks(samples: Sequence[Sample], size: int) -> NDArray[np.bool_]:
    """The masks of samples in order, bool [N, size, size]; all False for good pictures."""
    masks = np.zeros((len(samples), size, size), np.bool_)
    for index, sample in enumerate(samples):
        if sample.mask is not None:
            masks[index] = read_mask(sample.mask, size)
    return masks


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_image_name(path) and path.is_file())


def _sample(root: Path, path: Path, kind: str, mask: Path | None = None) -> Sample:
    name = path.relative_to(root).as_posix()
    return Sample(path=path, name=name, label=int(kind != GOOD), kind=kind, mask=mask)


def _test_samples(root: Path) -> list[Sample]:
    folder = root / "test"
    if not folder.is_dir():
        return []
    samples = []
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        if kind.name.startswith("."):
            continue
        for path in _images(kind):
            mask = None if kind.name == GOOD else _find_mask(root, path)
            samples.append(_sample(root, path, kind.name, mask))
    return sorted(samples, key=lambda sample: sample.name)


def _find_mask(root: Path, path: Path) -> Path:
    """The mask of a defect picture, checked against the picture's size and for being marked."""
    folder = root / "ground_truth" / path.parent.name
    names = [
        stem + path_suffix
        for stem in (f"{path.stem}_mask", path.stem)
        for path_suffix in (".png", *SUFFIXES)
    ]
    mask = next((folder / name for name in names if (folder / name).is_file()), None)
    if mask is None:
        raise InputError(f"{path}: has no mask; expected {folder / (path.stem + '_mask.png')}")
    marked, picture = read_marks(mask), read_image(path)
    if marked.shape != picture.shape[:2]:
        raise InputError(
            f"{mask}: {marked.shape[1]}x{marked.shape[0]} pixels, but its picture {path.name} has "
            f"{picture.shape[1]}x{picture.shape[0]}; save the mask at the picture's size"
        )
    if not marked.any():
        raise InputError(
            f"{mask}: marks no pixel; mark the defect or move {path.name} to test/good"
        )
    return mask
