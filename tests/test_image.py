"""Reading pictures: every format and depth the issue names, and every way a file can be bad."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndp_edge.errors import InputError
from ndp_edge.image import is_gray, read_image, read_marks, read_mask, read_square, write_png


def colours(size: int = 32) -> NDArray[np.uint8]:
    """A smooth RGB picture whose channels differ, so that a swap cannot pass."""
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    picture = np.empty((size, size, 3), np.uint8)
    picture[..., 0] = ramp[None, :]
    picture[..., 1] = ramp[:, None]
    picture[..., 2] = 40
    return picture


def save(path: Path, array: NDArray[np.generic]) -> Path:
    """Through cv2, which wants BGR."""
    stored = array
    if array.ndim == 3:
        stored = array[:, :, [2, 1, 0] if array.shape[2] == 3 else [2, 1, 0, 3]]
    assert cv2.imwrite(str(path), np.ascontiguousarray(stored))
    return path


def palette_png(path: Path) -> Path:
    """2x2, indices 0 1 / 2 3, colours red, green, blue, white."""

    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    colours_ = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", colours_)
        + chunk(b"IDAT", zlib.compress(b"\0\0\1\0\2\3"))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF", ".PNG"])
def test_lossless_formats_come_back_in_rgb(tmp_path: Path, suffix: str) -> None:
    assert np.array_equal(read_image(save(tmp_path / f"a{suffix}", colours())), colours())


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_lossy_formats_come_back_close_and_in_rgb(tmp_path: Path, suffix: str) -> None:
    seen = read_image(save(tmp_path / f"a{suffix}", colours())).astype(int)
    assert np.abs(seen - colours()).mean() < 6


def test_gray_is_replicated(tmp_path: Path) -> None:
    gray = colours()[..., 0]
    seen = read_image(save(tmp_path / "a.png", gray))
    assert seen.shape == (32, 32, 3)
    assert is_gray(seen)
    assert np.array_equal(seen[..., 1], gray)


def test_16_bit_is_scaled_by_its_type_not_its_content(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 1000], [32768, 65278, 65535]], np.uint16)
    seen = read_image(save(tmp_path / "a.png", deep))[..., 0]
    assert seen.tolist() == [[0, 1, 4], [128, 254, 255]]
    dark = read_image(save(tmp_path / "b.tif", np.full((8, 8), 2570, np.uint16)))
    assert (dark == 10).all()


def test_16_bit_colour_keeps_its_order(tmp_path: Path) -> None:
    deep = colours().astype(np.uint16) * 257
    assert np.array_equal(read_image(save(tmp_path / "a.png", deep)), colours())


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_is_dropped(tmp_path: Path, alpha: int) -> None:
    with_alpha = np.dstack([colours(), np.full((32, 32), alpha, np.uint8)])
    assert np.array_equal(read_image(save(tmp_path / "a.png", with_alpha)), colours())


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    seen = read_image(palette_png(tmp_path / "a.png"))
    assert seen.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]


def test_a_name_with_umlauts_and_spaces_is_read(tmp_path: Path) -> None:
    path = tmp_path / "Gew\u00e4be 1.png"
    write_png(path, colours())
    assert np.array_equal(read_image(path), colours())


def test_the_exif_orientation_of_a_photograph_is_applied(tmp_path: Path) -> None:
    jpeg = save(tmp_path / "a.jpg", colours()).read_bytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)  # 6: turn right
    body = b"Exif\0\0" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + jpeg[2:]
    (tmp_path / "b.jpg").write_bytes(turned)
    upright = read_image(tmp_path / "a.jpg")
    assert np.array_equal(read_image(tmp_path / "b.jpg"), np.rot90(upright, -1))


def test_float_pixels_have_no_range_and_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tiff", np.full((8, 8), 0.5, np.float32))
    with pytest.raises(InputError, match=r"float32.*8 or 16 bits"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
@given(share=st.floats(0.0, 0.97))
def test_a_truncated_file_is_refused_wherever_it_breaks(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, share: float
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    whole = save(folder / f"a{suffix}", noise).read_bytes()
    broken = folder / f"b{suffix}"
    broken.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"b\."):
        read_image(broken)


def test_a_truncated_jpeg_with_a_thumbnail_is_not_taken_for_whole(tmp_path: Path) -> None:
    jpeg = save(tmp_path / "a.jpg", colours(64)).read_bytes()
    thumb = save(tmp_path / "t.jpg", colours(8)).read_bytes()  # carries its own end marker
    app1 = b"\xff\xe1" + struct.pack(">H", 2 + len(thumb)) + thumb
    whole = jpeg[:2] + app1 + jpeg[2:]
    (tmp_path / "w.jpg").write_bytes(whole)
    assert read_image(tmp_path / "w.jpg").shape == (64, 64, 3)
    (tmp_path / "c.jpg").write_bytes(whole[:-200])
    with pytest.raises(InputError, match="truncated"):
        read_image(tmp_path / "c.jpg")


def test_a_flipped_byte_in_a_png_is_seen(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", colours())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"damaged|truncated"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello, this is not a picture at all", "not a PNG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged|truncated|decoded"),
        (b"\xff\xd8\xff" + bytes(100), "damaged|truncated"),
        (b"BM" + bytes(100), "truncated|decoded|damaged"),
        (b"II*\0" + bytes(100), "damaged|truncated"),
        (b"RIFF\x10\0\0\0WAVEfmt 1234567890123456", "not a WebP"),
    ],
)
def test_a_file_that_is_no_picture_is_one_plain_line(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.binary(max_size=200),
    st.sampled_from(
        [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"RIFF", b""]
    ),
)
def test_no_bytes_make_reading_crash(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, head: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.bin"
    path.write_bytes(head + tail)
    with pytest.raises(InputError):
        read_image(path)


def test_missing_files_and_folders_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="folder"):
        read_image(tmp_path)


def test_read_square_averages_areas(tmp_path: Path) -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(200)
    path = save(tmp_path / "a.png", board.astype(np.uint8))
    assert (read_square(path, 32) == 100).all()
    assert np.array_equal(read_square(path, 64)[..., 0], board)


@pytest.mark.parametrize(
    ("shape", "words"), [((64, 48), "48x64.*not square"), ((32, 32), "32x32.*smaller.*64x64")]
)
def test_read_square_says_the_numbers(tmp_path: Path, shape: tuple[int, int], words: str) -> None:
    path = save(tmp_path / "a.png", np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match=words):
        read_square(path, 64)


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_mask_counts_every_non_zero_pixel(
    tmp_path: Path, value: int, kind: type[np.unsignedinteger]
) -> None:
    mask = np.zeros((32, 32), kind)
    mask[3:9, 4:20] = value
    seen = read_mask(save(tmp_path / "m.png", mask), 32)
    assert seen.dtype == np.bool_
    assert np.array_equal(seen, mask > 0)


def test_a_thin_mask_does_not_shrink_to_nothing(tmp_path: Path) -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[100] = 255
    seen = read_mask(save(tmp_path / "m.png", mask), 64)
    assert np.array_equal(np.flatnonzero(seen.any(axis=1)), [25])
    mask[96:104] = 255
    seen = read_mask(save(tmp_path / "m.png", mask), 64)
    assert np.array_equal(np.flatnonzero(seen.any(axis=1)), [24, 25])


def test_bad_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="JPEG"):
        read_marks(save(tmp_path / "m.jpg", np.zeros((32, 32), np.uint8)))
    with pytest.raises(InputError, match="32x16"):
        read_mask(save(tmp_path / "m.png", np.zeros((16, 32), np.uint8)), 16)


def test_write_png_round_trips_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", colours())
    write_png(tmp_path / "a.png", colours()[::-1])
    assert np.array_equal(read_image(tmp_path / "a.png"), colours()[::-1])
    write_png(tmp_path / "m.png", colours()[..., 0] > 100)
    assert np.array_equal(read_marks(tmp_path / "m.png"), colours()[..., 0] > 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "m.png"]
    with pytest.raises(ValueError, match="float64"):
        write_png(tmp_path / "f.png", np.zeros((4, 4)))


def test_importing_the_module_loads_no_cv2() -> None:
    code = "import sys, ndp_edge.image, ndp_edge.data.surface; print('cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
