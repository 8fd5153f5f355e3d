"""Disjoint splits of a dataset, decided by what the files hold, not by how they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ndp_edge.data.folder import Dataset, Sample
from ndp_edge.errors import InputError
from ndp_edge.files import file_hash

PARTS = ("train", "calibration", "tune", "threshold", "test")

TUNE_SHARE = 0.4
"""Of the calibration fraction. The tune split is cut out of it so that train and threshold are
what they were before there was one: nets trained earlier stay usable, and a quarter of the
pictures goes on to carry the threshold."""


@dataclass(frozen=True)
class Splits:
    """Five lists of pictures that share no file content.

    train, calibration, tune, threshold: good pictures from train/good; tune is for choices
    (calibration method, layers to leave in float). test: the whole test folder, chooses nothing.
    hashes: picture name -> SHA-256 of its bytes. digest: split name -> SHA-256 over its sorted
    file hashes (one per line). seed: the one that ranked the files.
    """

    train: list[Sample]
    calibration: list[Sample]
    tune: list[Sample]
    threshold: list[Sample]
    test: list[Sample]
    hashes: dict[str, str]
    digest: dict[str, str]
    seed: int


def split(
    dataset: Dataset, seed: int = 0, fractions: Sequence[float] = (0.65, 0.10, 0.25)
) -> Splits:
    """Split train/good into train, calibration (with tune) and threshold; test stays whole.

    Distinct contents are ranked by SHA-256 of "<seed>:<file hash>" and sliced by fractions, so
    the split depends on neither names nor order, and byte-identical files stay together. A
    fraction above 0 gets at least one content. Of the second fraction TUNE_SHARE, rounded down,
    is the tune split (none of one or two contents). Copies that were re-encoded count as
    different.

    Raises InputError: fractions that are not three shares summing to 1, too few different good
    pictures, or a test picture whose content also stands in train/good.
    """
    _check_fractions(fractions)
    samples = [*dataset.train, *dataset.test]
    hashes = {sample.name: file_hash(sample.path) for sample in samples}
    contents = sorted(
        {hashes[sample.name] for sample in dataset.train}, key=lambda content: _rank(seed, content)
    )
    trained, calibrated, rest = _counts(dataset, len(contents), fractions)
    tuned = int(TUNE_SHARE * calibrated)
    part_of: dict[str, int] = {}
    start = 0
    for part, count in enumerate((trained, calibrated - tuned, tuned, rest)):
        part_of.update(dict.fromkeys(contents[start : start + count], part))
        start += count
    parts: list[list[Sample]] = [[], [], [], []]
    for sample in dataset.train:
        parts[part_of[hashes[sample.name]]].append(sample)
    lists = dict(zip(PARTS, [*parts, list(dataset.test)], strict=True))
    digest = {part: _digest(hashes[sample.name] for sample in lists[part]) for part in PARTS}
    splits = Splits(**lists, hashes=hashes, digest=digest, seed=seed)
    check_disjoint(splits)
    return splits


def check_disjoint(splits: Splits) -> None:
    """Raise InputError, naming both files, when two splits hold a file of the same content."""
    seen: dict[str, tuple[str, str]] = {}
    for part in PARTS:
        samples: list[Sample] = getattr(splits, part)
        for sample in samples:
            content = splits.hashes[sample.name]
            other, name = seen.setdefault(content, (part, sample.name))
            if other != part:
                raise InputError(
                    f"{sample.name} ({part}) is the same file as {name} ({other}); results on it "
                    f"would prove nothing: remove one of the two"
                )


def _rank(seed: int, content: str) -> str:
    return hashlib.sha256(f"{seed}:{content}".encode()).hexdigest()


def _digest(contents: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(contents)).encode()).hexdigest()


def _check_fractions(fractions: Sequence[float]) -> None:
    if (
        len(fractions) != 3
        or not all(share >= 0 for share in fractions)
        or abs(sum(fractions) - 1) > 1e-6
    ):
        raise InputError(
            f"split fractions {tuple(fractions)} must be three shares of at least 0 that sum to 1"
        )


def _counts(dataset: Dataset, total: int, fractions: Sequence[float]) -> list[int]:
    """How many distinct contents each part takes: rounded shares, none of them starved to 0."""
    least = [int(share > 0) for share in fractions]
    if total < sum(least):
        raise InputError(
            f"{dataset.root / 'train' / 'good'}: {total} different good pictures, but the splits "
            f"need at least {sum(least)}; add good photographs"
        )
    counts = [max(low, round(total * share)) for low, share in zip(least, fractions, strict=True)]
    while sum(counts) != total:
        step = 1 if sum(counts) < total else -1
        movable = [i for i in range(3) if step > 0 or counts[i] > least[i]]
        worst = max(movable, key=lambda i: (total * fractions[i] - counts[i]) * step)
        counts[worst] += step
    return counts
