"""Where verdicts go: results.jsonl, float maps, overlays. Whole lines and whole files only."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge import heat
from ndp_edge.console import plain
from ndp_edge.errors import InputError
from ndp_edge.files import write_atomic
from ndp_edge.image import to_square
from ndp_edge.types import Frame, Result

RESULTS, SUMMARY, MAPS, OVERLAYS = "results.jsonl", "summary.json", "maps", "overlays"

SYNC_SECONDS = 1.0
"""At most this long a verdict stays in the system's memory only: a power cut loses no more,
a killed process loses nothing."""


def to_line(result: Result) -> dict[str, Any]:
    """A result as the keys of one line of results.jsonl (DESIGN section 8), in their order."""
    line: dict[str, Any] = {
        "frame": result.frame,
        "time": round(result.time, 6),
        "score": result.score,
        "threshold": result.threshold,
        "verdict": result.verdict,
        "defects": [
            {"box": list(defect.box), "area": defect.area, "peak": defect.peak}
            for defect in result.defects
        ],
        "latency_ms": {stage: round(ms, 3) for stage, ms in result.latency_ms.items()},
        "bundle": result.bundle,
    }
    if result.error is not None:
        line["error"] = result.error
    return line


class ResultsLog:
    """Appends lines to results.jsonl, each by one write, and undoes one that fails half-way.

    A context manager; closing flushes to the disk.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._synced = time.monotonic()

    def __enter__(self) -> ResultsLog:
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
        except BaseException:
            os.ftruncate(self._file, before)
            raise
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            os.fsync(self._file)
            self._synced = time.monotonic()


def read_results(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a results.jsonl; a last line cut short by a power cut is cut off.

    Raises:
        InputError: a line that is not one of ours.
    """
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    lines = []
    for number, text in enumerate(data[:end].splitlines(), 1):
        try:
            line = json.loads(text.decode("utf-8", "surrogateescape"))
            whole = all(key in line for key in ("frame", "verdict", "bundle", "latency_ms"))
        except (ValueError, TypeError):
            whole = False
        if not whole:
            raise InputError(f"{path} line {number} is not a result; use another --out")
        lines.append(line)
    if end < len(data):
        with path.open("rb+") as handle:
            handle.truncate(end)
    return lines


class PictureSink:
    """Writes maps/<name>.tiff (float32, smoothed) and overlays/<name>.jpg for every frame.

    Args:
        root: the run's folder.
        names: all frame names; two that differ in the suffix only keep it in their file names.
    """

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root = root
        self._stems = stems(names)

    def write(self, frame: Frame, smoothed: NDArray[np.float32], threshold: float) -> None:
        """Write both files, each whole or not at all.

        Args:
            frame: the picture, [H, W, 3].
            smoothed: float32 [H, W].
            threshold: where the colours turn.
        """
        stem = self._stems[frame.name]
        write_map(_made(self.root / MAPS / f"{stem}.tiff"), smoothed)
        marked = heat.overlay(to_square(frame.image, len(smoothed)), smoothed, threshold, zoom=1)
        both = np.concatenate([marked, heat.colours(smoothed, threshold)], axis=1)
        path = _made(self.root / OVERLAYS / f"{stem}.jpg")
        write_atomic(path, heat.encode(both), sync=False)


def write_map(path: Path, smoothed: NDArray[np.float32]) -> None:
    """A map as an uncompressed float32 TIFF, whole or not at all; its folder must exist."""
    import cv2

    none = [int(cv2.IMWRITE_TIFF_COMPRESSION), int(cv2.IMWRITE_TIFF_COMPRESSION_NONE)]
    done, data = cv2.imencode(".tiff", smoothed, none)
    if not done:
        raise ValueError(f"cannot encode a map of {smoothed.shape} {smoothed.dtype} as TIFF")
    write_atomic(path, data.tobytes(), sync=False)


def stems(names: list[str]) -> dict[str, str]:
    """Name -> the same without its suffix, or whole where two would share one file."""
    short = {name: name.rpartition(".")[0] for name in names}
    counts: dict[str, int] = {}
    for stem in short.values():
        counts[stem] = counts.get(stem, 0) + 1
    return {name: stem if counts[stem] == 1 else name for name, stem in short.items()}


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
