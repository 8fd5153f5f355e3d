"""Where frames come from. A source hands over one `Captured` per frame, readable or not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ndp_edge.errors import InputError
from ndp_edge.image import is_image_name, read_image
from ndp_edge.types import Frame

_STREAMS = ("v4l2:", "rtsp://", "rtsps://", "http://", "https://", "gst:")


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
    """Anything that yields frames in order; a broken frame is a `Captured` with an error."""

    def __iter__(self) -> Iterator[Captured]:
        """Yield every frame once."""


class FolderSource:
    """The pictures below a folder, sorted by their path relative to it.

    Args:
        root: the folder; sub-folders are searched too, hidden files are not.
        skip: names already judged, to go on after a stop.
        limit: at most this many frames.

    Raises:
        InputError: no such folder, or no pictures in it.
    """

    def __init__(self, root: Path, skip: Sequence[str] = (), limit: int | None = None) -> None:
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
        done = set(skip)
        self.root = root
        self.names: list[str] = names
        self.left = [name for name in names[:limit] if name not in done]

    def __len__(self) -> int:
        return len(self.left)

    def __iter__(self) -> Iterator[Captured]:
        for name in self.left:
            yield self._read(name)

    def _read(self, name: str) -> Captured:
        stamp, began = time.time(), time.perf_counter()
        frame, error = None, None
        try:
            frame = Frame(name, read_image(self.root / name), stamp)
        except InputError as problem:
            error = str(problem)
        return Captured(name, stamp, frame, error, 1e3 * (time.perf_counter() - began))


def check_folder(source: str) -> Path:
    """The folder that `--source` names.

    Raises:
        InputError: it names a camera, a stream or a video, or no folder at all.
    """
    if source.startswith(_STREAMS):
        raise InputError(
            f"--source {source}: cameras and streams come with a later version; "
            "save the frames into a folder and give that"
        )
    path = Path(source)
    if path.is_file():
        raise InputError(
            f"--source {source}: is a file; give the folder it lies in "
            "(video files come with a later version)"
        )
    return path
