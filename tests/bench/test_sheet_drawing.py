"""Which pictures a sheet shows, and how it draws them: no engine, no files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_edge import heat
from ndp_edge.bench import sheet_drawing, sheets
from ndp_edge.bench.sheet_drawing import TILE, Band, Column, corner, draw, tops


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 1)), min_size=1, max_size=40),
    st.floats(0, 1),
    st.integers(1, 9),
)
def test_each_picture_is_shown_as_what_it_is(
    pictures: list[tuple[float, int]], threshold: float, each: int
) -> None:
    scores = np.array([score for score, _ in pictures], np.float32)
    labels = np.array([label for _, label in pictures], np.int64)
    found = sheets.choose(scores, labels, threshold, each)

    def those(label: int, rejected: bool) -> list[int]:
        return [
            i for i, (s, at) in enumerate(pictures) if at == label and (s > threshold) == rejected
        ]

    assert sorted(found.hits) == those(1, True)
    assert sorted(found.misses) == those(1, False)
    assert sorted(found.false_rejects) == those(0, True)
    for kind in ("hits", "misses", "false_rejects"):
        every, shown = getattr(found, kind), found.shown[kind]
        assert len(shown) == len(set(shown)) == min(each, len(every))
        assert [i for i in every if i in shown] == shown
        ranked = [float(scores[i]) for i in every]
        assert ranked == sorted(ranked, reverse=kind != "misses")
        if every:
            assert shown[0] == every[0]
            assert each == 1 or kind == "false_rejects" or shown[-1] == every[-1]
    near, passed = found.shown["nearest"], those(0, False)
    assert len(set(near)) == len(near) == min(max(0, each - len(found.false_rejects)), len(passed))
    assert sorted((scores[i] for i in passed), reverse=True)[: len(near)] == [
        scores[i] for i in near
    ]
    assert set(near) <= set(passed)


def test_both_ends_of_many_are_shown() -> None:
    scores = np.arange(20, dtype=np.float32) / 20
    found = sheets.choose(scores, np.ones(20, np.int64), 0.49, 5)
    assert found.shown["hits"] == [19, 18, 17, 11, 10]
    assert found.shown["misses"] == [0, 1, 2, 8, 9]


@settings(max_examples=25)
@given(
    st.sampled_from([64, 160, 192, 256, 320, 512]), st.floats(0.0, 1.0), st.floats(0.05, 0.95),
    st.data(),
)  # fmt: skip
def test_what_is_above_the_threshold_is_seen(
    size: int, peak: float, threshold: float, draws: st.DataObject
) -> None:
    heat_map = np.zeros((size, size), np.float32)
    y, x = (draws.draw(st.integers(0, size - 1)) for _ in range(2))
    heat_map[y, x] = peak
    image, mask = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.bool_)
    three = sheet_drawing.tiles(Column("", "", image, heat_map, mask), threshold)
    assert [t.shape for t in three] == [(TILE, TILE, 3)] * 3
    warm = (three[2][..., 0] > three[2][..., 2]) & (three[2][..., 0] > 120)
    rejected = float(heat_map.max()) > threshold
    assert bool(warm.any()) == rejected
    assert (three[1] == heat.DEFECT_COLOUR).all(axis=2).any() == rejected


def test_long_and_foreign_names_stay_below_their_tile() -> None:
    image, mask = np.full((64, 64, 3), 90, np.uint8), np.zeros((64, 64), np.bool_)
    flat = np.zeros((64, 64), np.float32)
    name = "spöt/" + "a_very_long_name_" * 6 + ".png"
    column = Column(name, "score 0.1234 <= 0.5000", image, flat, mask)
    sheet = draw("t" * 400, [Band("b" * 300, "c" * 300, [column])], 0.5)
    x, y = corner(3, 0, tops([])[0])
    caption = sheet[y : y + 2 * sheet_drawing.LINE]
    assert (caption[:, x : x + TILE] < 128).any()
    assert (caption[:, x + TILE :] == 255).all()
    assert (sheet[:, -sheet_drawing.MARGIN :] == 255).all()


@pytest.mark.parametrize("suffix", sorted(sheet_drawing.WRITES))
def test_every_kind_of_file_opens(suffix: str) -> None:
    sheet = np.full((80, 96, 3), 255, np.uint8)
    sheet[20:60, 20:60] = (220, 40, 40)
    data = np.frombuffer(sheet_drawing.encode(sheet, suffix), np.uint8)
    back = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]
    assert back.shape == sheet.shape
    assert np.abs(back.astype(int) - sheet).mean() < (3 if suffix != ".png" else 1e-9)
