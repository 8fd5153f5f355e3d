"""A sheet of test pictures as pixels: bands of columns, three tiles and a caption each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ndp_edge import heat
from ndp_edge.postprocess import find_defects

TILE, GAP, MARGIN = 160, 8, 16
HEADER, BAND_TITLE, LINE, BELOW = 66, 30, 16, 14
"""Heights in pixels: of title and key, of a band's title, of a line of a caption, and the space
under a band."""

LEAST = 5
"""A sheet is at least as wide as this many columns, for its title's sake."""

PAPER, INK, GRAY = (255, 255, 255), (28, 34, 40), (105, 112, 120)

WRITES = {
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 9],
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 90],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 90],
}
"""Kinds of file, and how they are written: .png loses nothing, the others a third to a tenth of
its size."""

RGB = NDArray[np.uint8]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Column:
    """One picture.

    Attributes:
        name, told: the two lines of the caption.
        image: uint8 [S, S, 3], RGB.
        heat: float32 [S, S], the smoothed map.
        mask: bool [S, S], the true defect; all False where there is none.
    """

    name: str
    told: str
    image: RGB
    heat: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Band:
    """A title, a remark in gray beside it, any number of columns, and which of a picture's tiles
    they have: 0 photograph, 1 with what is true and what was found, 2 map."""

    title: str
    told: str
    columns: Sequence[Column]
    rows: Sequence[int] = (0, 1, 2)


def corner(row: int, column: int, top: int) -> tuple[int, int]:
    """x and y of a tile's left upper pixel, in a band that begins at y = `top`; both from 0."""
    return MARGIN + column * (TILE + GAP), top + BAND_TITLE + row * (TILE + 2)


def height(band: Band) -> int:
    """Of a band in pixels; one without columns is its title."""
    tiles = len(band.rows) * (TILE + 2) + 2 * LINE + BELOW if band.columns else 0
    return BAND_TITLE + tiles


def tops(bands: Sequence[Band]) -> list[int]:
    """y at which each band begins, and below them where the last one ends."""
    result = [HEADER]
    for band in bands:
        result.append(result[-1] + height(band))
    return result


def draw(title: str, bands: Sequence[Band], threshold: float) -> RGB:
    """The sheet: title and key, then the bands, all tiles on one grid.

    Each column holds, from top to bottom, the photograph; the photograph with the true defect's
    outline and the boxes of `find_defects`; the map on the fixed scale of `heat`.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    columns = max([LEAST, *(len(band.columns) for band in bands)])
    starts = tops(bands)
    width = 2 * MARGIN + columns * (TILE + GAP) - GAP
    sheet = np.full((starts[-1] + MARGIN, width, 3), PAPER, np.uint8)
    _text(sheet, title, (MARGIN, 26), INK, 0.55, width - 2 * MARGIN)
    _key(sheet, 50, threshold)
    for band, top in zip(bands, starts, strict=False):
        end = _text(sheet, band.title, (MARGIN, top + 18), INK, 0.5, width - 2 * MARGIN)
        if (room := width - MARGIN - end - 12) > 0:
            _text(sheet, band.told, (end + 12, top + 18), GRAY, 0.4, room)
        for index, column in enumerate(band.columns):
            three = tiles(column, threshold)
            for row, which in enumerate(band.rows):
                x, y = corner(row, index, top)
                sheet[y : y + TILE, x : x + TILE] = three[which]
            x, y = corner(len(band.rows), index, top)
            _text(sheet, column.name, (x, y + 11), INK, 0.38, TILE)
            _text(sheet, column.told, (x, y + 11 + LINE), GRAY, 0.38, TILE)
    return sheet


def tiles(column: Column, threshold: float) -> list[RGB]:
    """The three tiles of a picture, uint8 [TILE, TILE, 3] each."""
    side = column.image.shape[0]
    plain: RGB = np.asarray(cv2.resize(column.image, (TILE, TILE), interpolation=cv2.INTER_AREA))
    marked = plain.copy()
    _outline(marked, column.mask)
    scale = TILE / side
    for defect in find_defects(column.heat, threshold):
        x, y, w, h = defect.box
        left, top = max(0, round(x * scale) - 1), max(0, round(y * scale) - 1)
        right, bottom = (min(TILE - 1, round(end * scale)) for end in (x + w, y + h))
        cv2.rectangle(marked, (left, top), (right, bottom), heat.DEFECT_COLOUR, 1)
    return [plain, marked, heat.colours(_shrunk(column.heat), threshold)]


def _shrunk(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map [S, S] as [TILE, TILE]: each pixel has the highest value of those it stands for, so
    that what is above the threshold stays in sight."""
    reach = -(-values.shape[0] // TILE)
    highest = cv2.dilate(values, np.ones((reach, reach), np.uint8), anchor=(0, 0))
    small = cv2.resize(highest, (TILE, TILE), interpolation=cv2.INTER_NEAREST)
    return np.asarray(small, np.float32)


def _outline(tile: RGB, mask: NDArray[np.bool_]) -> None:
    share = cv2.resize(mask.astype(np.float32), (TILE, TILE), interpolation=cv2.INTER_AREA)
    region = (np.asarray(share) > 0).astype(np.uint8)  # thin ones, too
    contours, _ = cv2.findContours(region, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tile, contours, -1, heat.TRUTH_COLOUR, 1)


def _key(sheet: RGB, y: int, threshold: float) -> None:
    """What the colours mean, in one line about the height y."""
    x = MARGIN
    for colour, name in ((heat.TRUTH_COLOUR, "true defect"), (heat.DEFECT_COLOUR, "found")):
        cv2.rectangle(sheet, (x, y - 9), (x + 11, y + 2), colour, 2)
        x = _text(sheet, name, (x + 18, y), INK, 0.4) + 20
    x = _text(sheet, "map: 0", (x, y), INK, 0.4) + 6
    bar = np.broadcast_to(heat.COLOURS, (12, len(heat.COLOURS), 3))
    sheet[y - 9 : y + 3, x : x + len(heat.COLOURS)] = bar
    x = _text(sheet, f"{heat.TOP:g}", (x + len(heat.COLOURS) + 6, y), INK, 0.4)
    _text(sheet, f"(threshold {threshold:.4f} in the middle)", (x + 10, y), GRAY, 0.4)


def _text(
    sheet: RGB, text: str, at: tuple[int, int], colour: Colour, scale: float, room: int = 0
) -> int:
    """Write with the baseline's left end at (x, y); x where it ends. Shortened to `room` pixels
    in the middle, where the least is lost of a path."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    text = text.encode("ascii", "replace").decode()  # the font has no other letters

    def wide(words: str) -> int:
        return int(cv2.getTextSize(words, font, scale, 1)[0][0])

    whole, keep = text, len(text)
    while room and keep > 1 and wide(text) > room:
        keep -= 1
        text = f"{whole[: keep // 2]}..{whole[len(whole) - (keep - keep // 2) :]}"
    cv2.putText(sheet, text, at, font, scale, colour, 1, cv2.LINE_AA)
    return at[0] + wide(text)


def encode(sheet: RGB, suffix: str) -> bytes:
    """uint8 [H, W, 3] as the bytes of a file of one of the kinds of `WRITES`."""
    _, data = cv2.imencode(suffix, sheet[..., ::-1], WRITES[suffix])
    return bytes(data)
