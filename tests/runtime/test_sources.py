"""Folders of pictures and lists of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_edge.errors import InputError
from ndp_edge.image import write_png
from ndp_edge.runtime.opening import open_source


def picture(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((8, 8), level, np.uint8))
    return path


def names(source: Any) -> list[str]:
    return [captured.name for captured in source]


def test_a_folder_with_skip_and_limit(tmp_path: Path) -> None:
    for name in ("b/2.png", "a.png", "c.png", ".hidden.png", ".cache/x.png"):
        picture(tmp_path / name)
    source: Any = open_source(str(tmp_path), skip=["a.png"], limit=2)
    assert names(source) == ["b/2.png"] and len(source) == 1
    assert source.names == ["a.png", "b/2.png", "c.png"] and not source.live
    frames = iter(open_source(str(tmp_path)))
    next(frames)
    source.close()
    assert names(source) == []


def test_a_folder_of_mosaics(tmp_path: Path) -> None:
    raw = np.zeros((8, 8), np.uint16)
    raw[::2, ::2] = 4095
    cv2.imwrite(str(tmp_path / "m.png"), raw)
    write_png(tmp_path / "n.png", np.full((8, 8), 9, np.uint8))
    mosaic, shallow = open_source(str(tmp_path), pixel="rggb12")
    assert mosaic.frame is not None and mosaic.frame.image[3, 3].tolist() == [255, 0, 0]
    assert shallow.error is not None and "n.png" in shallow.error and "12 bits" in shallow.error
    with pytest.raises(InputError, match="pixel format 'rgbg'"):
        open_source(str(tmp_path), pixel="rgbg")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "# what to look at\n\n  sub/b.png\na.png\nno.png\n"),
        ("list.csv", "time,Path\n1,sub/b.png\n2, a.png\n\n3,no.png\n"),
        ("list.csv", "sub/b.png,1\na.png,2\nno.png,3\n"),
        ("list.txt", "\ufeffsub/b.png\r\na.png\r\nno.png\r\n"),
    ],
)
def test_a_list_in_its_order(tmp_path: Path, name: str, text: str) -> None:
    picture(tmp_path / "a.png", 7)
    picture(tmp_path / "sub" / "b.png", 9)
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    source = open_source(str(tmp_path / name))
    b, a, missing = list(source)
    assert [b.name, a.name, missing.name] == ["sub/b.png", "a.png", "no.png"]
    assert b.frame is not None and b.frame.image.max() == 9
    assert missing.frame is None and "no such file" in str(missing.error)
    assert names(open_source(str(tmp_path / name), skip=["sub/b.png"], limit=2)) == ["a.png"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("list.txt", b"# nothing\n", "names no pictures"),
        ("list.csv", b"path\n", "names no pictures"),
        ("list.csv", b"", "names no pictures"),
        ("list.txt", b"a.png\nb.png\na.png\n", "names a.png twice"),
        ("list.txt", b"\xff\xfe\x00", "it is not UTF-8"),
        ("one.png", b"x", "is one picture; give its folder"),
    ],
)
def test_files_that_are_no_source(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=why):
        open_source(str(tmp_path / name))


def test_only_a_folder_can_be_watched(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\n")
    for spec in (str(tmp_path / "list.txt"), str(tmp_path / "none")):
        with pytest.raises(InputError, match="only a folder can be watched"):
            open_source(spec, watch=True)
