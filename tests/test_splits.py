"""Splits: complete, disjoint by content, stable against names, honest about leaks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge.data.folder import Dataset, Sample
from ndp_edge.data.splits import PARTS, TUNE_SHARE, check_disjoint, split
from ndp_edge.errors import InputError


def make(
    root: Path, train: Sequence[bytes], test: Sequence[bytes] = (), *, prefix: str = ""
) -> Dataset:
    """A dataset whose files hold these bytes; splits never decode a picture."""

    def sample(part: str, index: int, content: bytes) -> Sample:
        name = f"{part}/good/{prefix}{index:03d}.png"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return Sample(path=path, name=name, label=0, kind="good", mask=None)

    return Dataset(
        root=root,
        train=[sample("train", i, content) for i, content in enumerate(train)],
        test=[sample("test", i, content) for i, content in enumerate(test)],
    )


def different(count: int) -> list[bytes]:
    return [f"picture {i}".encode() for i in range(count)]


def names(samples: list[Sample]) -> list[str]:
    return [sample.name for sample in samples]


@given(count=st.integers(3, 60), copies=st.integers(0, 6), seed=st.integers(0, 1000))
def test_every_file_lands_once_and_copies_stay_together(
    tmp_path_factory: pytest.TempPathFactory, count: int, copies: int, seed: int
) -> None:
    contents = different(count)
    dataset = make(tmp_path_factory.mktemp("d"), contents + contents[:copies], [b"other"])
    splits = split(dataset, seed)
    parts = [splits.train, splits.calibration, splits.tune, splits.threshold]
    assert sorted(names([*chain(*parts)])) == names(dataset.train)
    held = [{splits.hashes[s.name] for s in part} for part in parts]
    trained, calibrated, tuned, rest = map(len, held)
    assert trained + calibrated + tuned + rest == count
    assert min(trained, calibrated, rest) > 0
    for size, share in ((trained, 0.65), (calibrated + tuned, 0.10), (rest, 0.25)):
        assert abs(size - share * count) <= 1.5
    assert tuned <= TUNE_SHARE * (calibrated + tuned) < tuned + 1
    assert splits.test == dataset.test


def test_the_shares_of_a_hundred_are_exact(tmp_path: Path) -> None:
    splits = split(make(tmp_path, different(100)))
    assert [len(getattr(splits, part)) for part in PARTS] == [65, 6, 4, 25, 0]


@given(count=st.integers(3, 60), seed=st.integers(0, 1000))
def test_the_tune_split_takes_nothing_from_train_or_threshold(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int
) -> None:
    # The splits of nets that were trained before there was a tune split: these shares of files
    # ranked by SHA-256 of seed and content.
    splits = split(make(tmp_path_factory.mktemp("d"), different(count)), seed)
    ranked = sorted(
        splits.hashes.values(), key=lambda h: hashlib.sha256(f"{seed}:{h}".encode()).hexdigest()
    )
    trained = {splits.hashes[s.name] for s in splits.train}
    rest = {splits.hashes[s.name] for s in splits.threshold}
    assert trained == set(ranked[: len(trained)])
    assert rest == set(ranked[count - len(rest) :])


def test_content_decides_not_names_or_order(tmp_path: Path) -> None:
    first = split(make(tmp_path / "a", different(30)))
    second = split(make(tmp_path / "b", different(30)[::-1], prefix="x"))
    assert first.digest == second.digest
    assert names(first.train) != names(second.train)
    assert split(make(tmp_path / "a", different(30)), seed=1).digest != first.digest


def test_hashes_and_digests_are_what_they_say(tmp_path: Path) -> None:
    splits = split(make(tmp_path, different(10), [b"t1", b"t2"]))
    assert splits.hashes["train/good/003.png"] == hashlib.sha256(b"picture 3").hexdigest()
    lines = "\n".join(sorted(hashlib.sha256(c).hexdigest() for c in (b"t1", b"t2")))
    assert splits.digest["test"] == hashlib.sha256(lines.encode()).hexdigest()
    assert set(splits.digest) == set(PARTS)
    assert splits.seed == 0


def test_a_test_file_that_was_trained_on_is_refused_by_name(tmp_path: Path) -> None:
    dataset = make(tmp_path, different(10), [b"fresh", b"picture 4"])
    with pytest.raises(InputError, match=r"test/good/001\.png.*train/good/004\.png"):
        split(dataset)


def test_copies_inside_the_test_set_are_allowed(tmp_path: Path) -> None:
    assert len(split(make(tmp_path, different(10), [b"same", b"same"])).test) == 2


def test_check_disjoint_finds_a_leak_between_any_two_parts(tmp_path: Path) -> None:
    splits = split(make(tmp_path, different(40), [b"fresh"]))
    check_disjoint(splits)
    for first in PARTS:
        for second in PARTS:
            if first == second:
                continue
            stray: Sample = getattr(splits, first)[0]
            grown: dict[str, Any] = {second: [*getattr(splits, second), stray]}
            leaky = dataclasses.replace(splits, **grown)
            with pytest.raises(InputError, match="same file"):
                check_disjoint(leaky)


def test_too_few_different_pictures_say_how_many_are_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 different good pictures.*at least 3"):
        split(make(tmp_path, [b"a", b"b", b"a", b"a"]))


def test_a_share_of_nothing_stays_empty(tmp_path: Path) -> None:
    splits = split(make(tmp_path, different(7)), fractions=(1.0, 0.0, 0.0))
    assert len(splits.train) == 7
    assert splits.calibration == splits.tune == splits.threshold == []


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.9, 0.2, -0.1), (0.5, 0.2, 0.2), (float("nan"), 0.5, 0.5)]
)
def test_shares_that_are_none_are_refused(tmp_path: Path, fractions: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="fractions"):
        split(make(tmp_path, different(5)), fractions=fractions)
