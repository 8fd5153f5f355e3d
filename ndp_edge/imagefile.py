"""Is a picture file whole? Checks on the bytes alone, before any decoder sees them.

cv2 decodes a truncated PNG, JPEG or BMP to a picture whose lower part is gray or black, and says
so at most on stderr. A detector would learn that gray. So each container is walked to its end.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

_PNG = b"\x89PNG\r\n\x1a\n"
_TRUNCATED = "the file is truncated"


def check_complete(data: bytes) -> str | None:
    """What is wrong with the bytes of a picture file, or None when the container is whole.

    Knows PNG (chunk walk with CRC), JPEG (segments, end marker), BMP, WebP (declared sizes) and
    TIFF (strips and tiles inside the file); anything else is "not a picture".
    """
    if len(data) < 12:
        return _TRUNCATED
    for starts, check in _CONTAINERS:
        if data.startswith(starts):
            return check(data)
    return "not a PNG, JPEG, BMP, TIFF or WebP picture"


def _png(data: bytes) -> str | None:
    at = len(_PNG)
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        end = at + 12 + length
        if end > len(data):
            return _TRUNCATED
        if zlib.crc32(data[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return "the file is damaged (a PNG checksum does not match)"
        if data[at + 4 : at + 8] == b"IEND":
            return None
        at = end
    return _TRUNCATED


def _jpeg(data: bytes) -> str | None:
    """Walk the header segments to the first scan; behind it 0xFFD9 can only be the end marker.

    The walk skips an EXIF thumbnail, which carries an end marker of its own.
    """
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return "the file is damaged (a JPEG segment is missing)"
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:
            return None if data.find(b"\xff\xd9", at) >= 0 else _TRUNCATED
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return _TRUNCATED


def _bmp(data: bytes) -> str | None:
    if len(data) < 54:
        return _TRUNCATED
    offset, header, width, height, _planes, bits, compression, size = struct.unpack_from(
        "<IIiiHHII", data, 10
    )
    if header < 40:  # the OS/2 header has 16-bit sizes: leave it to the decoder
        return None
    plain = compression in {0, 3}
    needed = abs(height) * ((abs(width) * bits + 31) // 32 * 4) if plain else size
    return _TRUNCATED if len(data) < offset + needed else None


def _tiff(data: bytes) -> str | None:
    """Every strip or tile that the first directory names must lie inside the file."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        entries = _tiff_entries(data, order)
        for offsets_tag, counts_tag in ((273, 279), (324, 325)):
            pairs = zip(entries.get(offsets_tag, ()), entries.get(counts_tag, ()), strict=False)
            if any(offset + count > len(data) for offset, count in pairs):
                return _TRUNCATED
    except struct.error:
        return _TRUNCATED
    return None if entries else "the file is damaged (an empty TIFF directory)"


def _tiff_entries(data: bytes, order: str) -> dict[int, tuple[int, ...]]:
    """Tag -> integer values of the first directory; only 16- and 32-bit integers are kept."""
    at = struct.unpack_from(order + "I", data, 4)[0]
    count = struct.unpack_from(order + "H", data, at)[0]
    entries: dict[int, tuple[int, ...]] = {}
    for index in range(count):
        here = at + 2 + 12 * index
        tag, kind, length = struct.unpack_from(order + "HHI", data, here)
        if tag not in {273, 279, 324, 325} or kind not in {3, 4}:
            entries.setdefault(tag, ())
            continue
        width = 2 if kind == 3 else 4
        place = here + 8
        if width * length > 4:
            place = struct.unpack_from(order + "I", data, place)[0]
        if place + width * length > len(data):
            raise struct.error("values outside the file")
        entries[tag] = struct.unpack_from(
            f"{order}{length}{'H' if kind == 3 else 'I'}", data, place
        )
    return entries


def _webp(data: bytes) -> str | None:
    if data[8:12] != b"WEBP":
        return "a RIFF file, but not a WebP picture"
    return _TRUNCATED if len(data) < 8 + struct.unpack_from("<I", data, 4)[0] else None


_CONTAINERS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[bytes], str | None]], ...] = (
    (_PNG, _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    ((b"II*\0", b"MM\0*"), _tiff),
)
