"""Video files: numbered frames, resuming, files that end too early."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_edge.errors import InputError
from ndp_edge.runtime.opening import open_source
from ndp_edge.runtime.video import VideoSource

FRAMES = 12


def film(path: Path, code: str = "MJPG", frames: int = FRAMES) -> Path:
    """Frame i is of gray level 20 (i mod 12), with a red left edge."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10, (96, 64))
    assert writer.isOpened()
    for number in range(frames):
        picture = np.full((64, 96, 3), 20 * (number % 12), np.uint8)
        picture[:, :16] = (0, 0, 200)
        writer.write(picture)
    writer.release()
    return path


@pytest.mark.parametrize(
    ("name", "code"), [("film.avi", "MJPG"), ("film.mp4", "mp4v"), ("film.mkv", "FFV1")]
)
def test_every_frame_in_order_in_rgb(tmp_path: Path, name: str, code: str) -> None:
    source = open_source(str(film(tmp_path / name, code)))
    assert not source.live
    got = list(source)
    assert [one.name for one in got] == [f"{number:06}" for number in range(FRAMES)]
    for number, one in enumerate(got):
        assert one.error is None and one.frame is not None and one.frame.name == one.name
        assert one.frame.image.shape == (64, 96, 3) and one.frame.image.dtype == np.uint8
        assert abs(one.frame.image[:, 32:].mean() - 20 * number) < 6
        red = one.frame.image[8:-8, 2:10].mean(axis=(0, 1))
        assert red[0] > 150 and red[2] < 60
    assert all(0 <= one.read_ms < 1e4 and one.time > 1e9 for one in got)


def test_going_on_skips_what_was_judged(tmp_path: Path) -> None:
    path = film(tmp_path / "film.avi")
    done = [f"{number:06}" for number in (0, 1, 2, 3, 5)]
    got = list(VideoSource(path, done, limit=8))
    assert [one.name for one in got] == ["000004", "000006", "000007"]
    assert got[0].frame is not None and abs(got[0].frame.image[:, 32:].mean() - 80) < 6
    assert list(VideoSource(path, [f"{number:06}" for number in range(FRAMES)])) == []


def test_it_can_be_read_twice_and_closed(tmp_path: Path) -> None:
    source = VideoSource(film(tmp_path / "film.avi"))
    assert len(list(source)) == len(list(source)) == FRAMES
    frames = iter(source)
    next(frames)
    source.close()
    assert list(frames) == []


def test_a_file_that_was_cut_says_so_once(tmp_path: Path) -> None:
    path = film(tmp_path / "film.avi", frames=40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    got = list(VideoSource(path))
    assert 5 < len(got) < 30
    assert all(one.error is None for one in got[:-1])
    last = got[-1]
    assert last.frame is None and last.error is not None
    assert f"ends after {len(got) - 1} of 40 frames" in last.error
    assert list(VideoSource(path, [one.name for one in got])) == []


@pytest.mark.parametrize("content", [b"", b"x", b"RIFF0000AVI LIST" + bytes(400)])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no video that can be decoded"):
        open_source(str(path))


def test_a_mosaic_that_a_codec_repeated_on_three_channels(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 10, (64, 64))
    raw = np.zeros((64, 64), np.uint8)
    raw[::2, ::2] = 220  # only the red pixels of rggb see light
    for _ in range(3):
        writer.write(np.repeat(raw[:, :, np.newaxis], 3, axis=2))
    writer.release()
    (first, *_) = VideoSource(path, pixel="rggb")
    assert first.error is None and first.frame is not None
    centre = first.frame.image[8:-8, 8:-8].reshape(-1, 3)
    assert centre[:, 0].min() > 200 and centre[:, 1:].max() < 20
    (first, *_) = VideoSource(path, pixel="mono12")
    assert first.frame is None and first.error is not None and "12 bits" in first.error
