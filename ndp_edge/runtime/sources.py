"""Where frames come from. A source hands over one `Captured` per frame, readable or not."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ndp_edge.errors import InputError
from ndp_edge.image import is_image_name, read_image
from ndp_edge.types import Frame


@dataclass(frozen=True)
class Captured:
    """One turn of a source: a frame, or the reason why there is none.

    Attributes:
        name: the frame's name, also when it could not be read.
        time: seconds since the epoch when reading began.
        frame: None when it could not be read.
        error: why not, one line; None when it could.
        read_ms: milliseconds spent on reading and decoding.
    """

    name: str
    time: float
    frame: Frame | None
    error: str | None
    read_ms: float


class Source(Protocol):
    """Anything that yields frames in order; a broken frame is a `Captured` with an error.

    Those that `opening.open_source` makes also have `live` (it has a clock of its own and no
    end, and what is not taken is lost), `names` (of all frames, where they are known
    beforehand), `reconnects` (how often it was lost and came back), and `close()`, which ends
    the iteration soon and may be called from any thread.
    """

    def __iter__(self) -> Iterator[Captured]:
        """Yield every frame once."""


class FileSource:
    """Picture files in a given order.

    Args:
        root: what the names are relative to.
        names: of the files, all different.
        skip: names already judged, to go on after a stop.
        limit: at most this many frames.
        pixel: what the files hold, see `ndp_edge.pixels`.

    Attributes:
        left: the names still to be read.
    """

    live = False
    reconnects = 0

    def __init__(
        self,
        root: Path,
        names: list[str],
        skip: Sequence[str] = (),
        limit: int | None = None,
        pixel: str = "auto",
    ) -> None:
        done = set(skip)
        self.root = root
        self.names: list[str] | None = names
        self.left = [name for name in names[:limit] if name not in done]
        self._pixel = pixel
        self._closed = False

    def __len__(self) -> int:
        return len(self.left)

    def __iter__(self) -> Iterator[Captured]:
        for name in self.left:
            if self._closed:
                return
            yield read_file(self.root / name, name, self._pixel)

    def close(self) -> None:
        """The file being read is the last."""
        self._closed = True


class FolderSource(FileSource):
    """The pictures below a folder, sorted by their path relative to it.

    Sub-folders are searched too, hidden files are not. Arguments as FileSource.

    Raises:
        InputError: no such folder, or no pictures in it.
    """

    def __init__(
        self,
        root: Path,
        skip: Sequence[str] = (),
        limit: int | None = None,
        pixel: str = "auto",
    ) -> None:
        if not root.is_dir():
            raise InputError(f"--source {root}: no such folder; give a folder of pictures")
        found = (path.relative_to(root) for path in root.rglob("*") if is_image_name(path))
        names = sorted(
            path.as_posix()
            for path in found
            if not any(part.startswith(".") for part in path.parts) and (root / path).is_file()
        )
        if not names:
            raise InputError(f"--source {root}: holds no pictures (PNG, JPEG, BMP, TIFF, WebP)")
        super().__init__(root, names, skip, limit, pixel)


class ListSource(FileSource):
    """The pictures that a list names, in its order; relative paths start at the list's folder.

    A .txt has one path per line, # for comments. A .csv has them in its column `path`, `file`,
    `image` or `name`, or in its first column if its first row names none of these. Arguments
    as FileSource. A picture that is missing is a frame that cannot be read, no wrong list.

    Raises:
        InputError: a list that cannot be read, names nothing, or names a picture twice.
    """

    def __init__(
        self,
        path: Path,
        skip: Sequence[str] = (),
        limit: int | None = None,
        pixel: str = "auto",
    ) -> None:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            raise InputError(f"--source {path}: the list cannot be read ({why})") from None
        names = _from_csv(text) if path.suffix.lower() == ".csv" else _from_lines(text)
        if not names:
            raise InputError(f"--source {path}: names no pictures; one path a line")
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise InputError(f"--source {path}: names {name} twice; each frame needs its own")
            seen.add(name)
        super().__init__(path.parent, names, skip, limit, pixel)


def read_file(path: Path, name: str, pixel: str = "auto") -> Captured:
    """One picture file as a frame."""
    stamp, began = time.time(), time.perf_counter()
    frame, error = None, None
    try:
        frame = Frame(name, read_image(path, pixel), stamp)
    except InputError as problem:
        error = str(problem)
    return Captured(name, stamp, frame, error, 1e3 * (time.perf_counter() - began))


def _from_lines(text: str) -> list[str]:
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def _from_csv(text: str) -> list[str]:
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((head.index(key) for key in ("path", "file", "image", "name") if key in head), -1)
    rows = rows[1:] if column >= 0 else rows
    cells = (row[max(0, column)].strip() for row in rows if len(row) > max(0, column))
    return [cell for cell in cells if cell]
