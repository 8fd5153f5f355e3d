"""A folder that another program fills: each picture is taken once it is whole.

By polling, not by notifications of the kernel, which do not reach network shares. A pass costs
one stat per folder; a folder is listed again only when its time has changed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ndp_edge.console import info
from ndp_edge.errors import InputError
from ndp_edge.image import is_image_name
from ndp_edge.runtime.sources import Captured, read_file

POLL_SECONDS = 0.2
SETTLE_SECONDS = 0.5
PATIENCE_SECONDS = 5.0

_COARSE_SECONDS = 2.5
"""A folder that changed so lately may change again without its time showing it."""


@dataclass
class _Growing:
    """A file not yet taken.

    Attributes:
        state: its size in bytes and time in ns.
        since: time.monotonic when this state was first seen.
        broken: in this state it was read, and is no whole picture.
    """

    state: tuple[int, int]
    since: float
    broken: bool = False


@dataclass
class _Folder:
    """A folder as last listed: its time in ns, its pictures and its sub-folders."""

    time: int
    files: set[str]
    folders: list[str]


class WatchedFolder:
    """The pictures in a folder and its sub-folders, and those that come, for ever.

    A file is taken when its size and time have not changed for SETTLE_SECONDS, or at once when
    its time is that old already (moved into place, or there from the start). One that then is
    no whole picture is looked at again when it changes, and counts as broken after
    PATIENCE_SECONDS without a change. In order of the files' times, then of their names. Names
    are relative to the folder; one that was taken is not looked at again, unless it is removed
    and a new one comes by that name.

    Args:
        root: the folder; it may go away and come back.
        skip: names already judged, to go on after a stop.
        limit: at most this many frames, those in `skip` included.
        pixel: what the files hold, see `ndp_edge.pixels`.

    Raises:
        InputError: no such folder.
    """

    live = False
    names: list[str] | None = None

    def __init__(
        self,
        root: Path,
        skip: Sequence[str] = (),
        limit: int | None = None,
        pixel: str = "auto",
    ) -> None:
        if not root.is_dir():
            raise InputError(f"--source {root}: no such folder; give the one to watch")
        self.root = root
        self.reconnects = 0
        self._pixel = pixel
        self._left = None if limit is None else max(0, limit - len(skip))
        self._taken = set(skip)
        self._growing: dict[str, _Growing] = {}
        self._folders: dict[str, _Folder] = {}
        self._gone = False
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Captured]:
        while not self._ended():
            for name in self._ready():
                captured = read_file(self.root / name, name, self._pixel)
                if captured.error is not None and self._may_mend(name):
                    continue
                del self._growing[name]
                self._taken.add(name)
                if self._left is not None:
                    self._left -= 1
                yield captured
                if self._ended():
                    return
            self._closed.wait(POLL_SECONDS)

    def close(self) -> None:
        """End the iteration at once."""
        self._closed.set()

    def _ended(self) -> bool:
        return self._closed.is_set() or self._left == 0

    def _ready(self) -> list[str]:
        """Names of the files to be read now, in the order of their times."""
        self._look()
        ready = []
        for name in list(self._growing):
            state = _state(self.root / name)
            if state is None:
                del self._growing[name]
            elif state != self._growing[name].state:
                self._growing[name] = _Growing(state, time.monotonic())
            if name in self._growing and self._settled(self._growing[name]):
                ready.append((self._growing[name].state[1], name))
        return [name for _, name in sorted(ready)]

    @staticmethod
    def _settled(file: _Growing) -> bool:
        return _quiet(file, PATIENCE_SECONDS if file.broken else SETTLE_SECONDS)

    def _may_mend(self, name: str) -> bool:
        """A file that is no whole picture may still be written to, if it changed not long ago."""
        file = self._growing[name]
        file.broken = True
        return not _quiet(file, PATIENCE_SECONDS)

    def _look(self) -> None:
        """See what is new in the folders that have changed."""
        try:
            for folder, before in list(self._walk("")):
                files = self._folders[folder].files
                self._taken -= before - files
                for name in files - self._taken - self._growing.keys():
                    state = _state(self.root / name)
                    if state is not None:
                        self._growing[name] = _Growing(state, time.monotonic())
        except OSError:
            if not self._gone:
                info(f"{self.root} is gone; waiting for it")
            self._gone = True
            return
        if self._gone:
            self._gone = False
            self.reconnects += 1
            info(f"{self.root} is back")

    def _walk(self, folder: str) -> Iterator[tuple[str, set[str]]]:
        """The folders from this one down that have changed, with the pictures they had before.

        Raises:
            OSError: the folder is gone.
        """
        stamp = (self.root / folder).stat().st_mtime_ns
        known = self._folders.get(folder)
        lately = time.time() - 1e-9 * stamp < _COARSE_SECONDS
        if known is None or known.time != stamp or lately:
            was = known or _Folder(0, set(), [])
            self._folders[folder] = known = self._list(folder, stamp)
            for gone in set(was.folders) - set(known.folders):
                self._forget(gone)
            yield folder, was.files
        for inside in known.folders:
            with contextlib.suppress(OSError):  # removed since: the folder above has a new time
                yield from self._walk(inside)

    def _forget(self, folder: str) -> None:
        """A folder was removed: what comes under its names is new."""
        was = self._folders.pop(folder, None)
        if was is not None:
            self._taken -= was.files
            for inside in was.folders:
                self._forget(inside)

    def _list(self, folder: str, stamp: int) -> _Folder:
        found = _Folder(stamp, set(), [])
        with os.scandir(self.root / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    found.folders.append(name)
                elif is_image_name(Path(entry.name)):
                    found.files.add(name)
        return found


def _state(path: Path) -> tuple[int, int] | None:
    """A file's size and time in ns; None where it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _quiet(file: _Growing, seconds: float) -> bool:
    """Nothing changed for so long, by its own time or by what was seen of it."""
    seen = time.monotonic() - file.since >= seconds
    return seen or time.time() - 1e-9 * file.state[1] >= seconds
