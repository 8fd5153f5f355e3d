"""Files of JSON lines that only ever hold whole lines: results.jsonl and drops.jsonl."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ndp_edge.console import plain
from ndp_edge.errors import InputError

SYNC_SECONDS = 1.0
"""At most this long a line stays in the system's memory only: a power cut loses no more,
a killed process loses nothing."""


class LineLog:
    """Appends lines, each by one write, and undoes one that fails half-way.

    A context manager; closing flushes to the disk.

    Args:
        path: made where it is missing.
        sync_seconds: flush at the first chance after so many seconds; 0 is every line.

    Raises:
        InputError: another process has it open.
    """

    def __init__(self, path: Path, sync_seconds: float = SYNC_SECONDS) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            lock(self._file, path)
        except InputError:
            os.close(self._file)
            raise
        self._every = sync_seconds
        self._synced = time.monotonic()
        self._dirty = False

    def __enter__(self) -> LineLog:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)

    def append(self, line: dict[str, Any]) -> None:
        """Write one line.

        Raises:
            OSError: the disk is full or gone; the file ends with the line before.
        """
        text = json.dumps(plain(line), ensure_ascii=False, allow_nan=False) + "\n"
        data = text.encode("utf-8", "surrogateescape")  # names of files need not be UTF-8
        before = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            self._dirty = True
            self.sync()  # where a quota or a network disk says that it is full
        except BaseException:
            os.ftruncate(self._file, before)
            raise

    def sync(self) -> None:
        """Flush to the disk if it is time; call it when nothing else happens.

        Raises:
            OSError: the disk is gone.
        """
        if self._dirty and time.monotonic() - self._synced >= self._every:
            os.fsync(self._file)
            self._synced = time.monotonic()
            self._dirty = False


def lock(descriptor: int, path: Path) -> None:
    """Lock an open file against other runs, until it is closed.

    Raises:
        InputError: another process has it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"another run is writing {path}; wait for it or stop it") from None
    except OSError:  # a file system without locks
        pass


def read_lines(path: Path, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The whole lines of a file that a `LineLog` wrote, one at a time.

    A last line cut short by a power cut is cut off the file first.

    Args:
        path: the file.
        keys: every line has them, but audit entries, which have "audit".

    Raises:
        InputError: a line that is not one of ours.
    """
    cut_torn_line(path)
    with path.open("rb") as handle:
        for number, text in enumerate(handle, 1):
            try:
                line = json.loads(text.decode("utf-8", "surrogateescape"))
                whole = "audit" in line or all(key in line for key in keys)
            except (ValueError, TypeError):
                whole = False
            if not whole:
                raise InputError(f"{path} line {number} is not a result; use another --out")
            yield line


def cut_torn_line(path: Path) -> None:
    """End the file behind its last whole line."""
    with path.open("rb+") as handle:
        end = handle.seek(0, os.SEEK_END)
        keep, at = 0, end
        while at > 0 and keep == 0:
            start = max(0, at - (1 << 16))
            handle.seek(start)
            found = handle.read(at - start).rfind(b"\n")
            keep = start + found + 1 if found >= 0 else 0
            at = start
        if keep < end:
            handle.truncate(keep)
