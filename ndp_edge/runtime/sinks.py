"""What is written of a frame: its line, its float map, mask and overlay. Whole files only."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ndp_edge import heat
from ndp_edge.files import write_atomic
from ndp_edge.image import to_square
from ndp_edge.types import Result

RESULTS, DROPS, SUMMARY = "results.jsonl", "drops.jsonl", "summary.json"
MAPS, OVERLAYS, MASKS = "maps", "overlays", "masks"

Keep = Literal["all", "rejects", "none"]
KEEPS: tuple[Keep, ...] = ("all", "rejects", "none")


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


class PictureSink:
    """Writes maps/<name>.tiff (float32, smoothed), overlays/<name>.jpg and masks/<name>.png.

    Args:
        root: the run's folder.
        names: all frame names where they are known; two that differ in the suffix only keep it
            in their file names. None: every file keeps it.
        keep: of which frames.
        masks: also the regions above the threshold, white on black, at the map's size.
    """

    def __init__(
        self, root: Path, names: list[str] | None, keep: Keep = "all", *, masks: bool = False
    ) -> None:
        self.root = root
        self._stems = None if names is None else stems(names)
        self._keep = keep
        self._masks = masks

    def write(
        self, name: str, image: NDArray[np.uint8], smoothed: NDArray[np.float32], result: Result
    ) -> None:
        """Write a frame's files, each whole or not at all.

        Args:
            name: the frame's.
            image: the picture, uint8 [H, W, 3].
            smoothed: float32 [h, w], of the picture's size or of a square one shrunk.
            result: its verdict; its threshold is where the colours turn.

        Raises:
            OSError: the disk is full or gone.
        """
        if self._keep == "none" or (self._keep == "rejects" and result.verdict != "reject"):
            return
        stem = safe_stem(name) if self._stems is None else self._stems[name]
        threshold = result.threshold
        write_map(_made(self.root / MAPS / f"{stem}.tiff"), smoothed)
        if self._masks:
            marks = np.uint8(255) * heat.above(smoothed, threshold)
            path = _made(self.root / MASKS / f"{stem}.png")
            write_atomic(path, heat.encode(marks, ".png"), sync=False)
        marked = heat.overlay(shown(image, smoothed), smoothed, threshold, zoom=1)
        both = np.concatenate([marked, heat.colours(smoothed, threshold)], axis=1)
        path = _made(self.root / OVERLAYS / f"{stem}.jpg")
        write_atomic(path, heat.encode(both), sync=False)


def shown(image: NDArray[np.uint8], smoothed: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A frame [H, W, 3] at its map's size [h, w], where it was shrunk for it."""
    return image if image.shape[:2] == smoothed.shape else to_square(image, len(smoothed))


def write_map(path: Path, smoothed: NDArray[np.float32]) -> None:
    """A map as an uncompressed float32 TIFF, whole or not at all; its folder must exist."""
    import cv2

    none = [int(cv2.IMWRITE_TIFF_COMPRESSION), int(cv2.IMWRITE_TIFF_COMPRESSION_NONE)]
    done, data = cv2.imencode(".tiff", smoothed, none)
    if not done:
        raise ValueError(f"cannot encode a map of {smoothed.shape} {smoothed.dtype} as TIFF")
    write_atomic(path, data.tobytes(), sync=False)


def stems(names: list[str]) -> dict[str, str]:
    """Name -> a path for its files below the run's folder; no two names share one.

    It is the name without its suffix, or whole where two would share one file.
    """
    short = {name: safe_stem(name.rpartition(".")[0] or name) for name in names}
    counts = Counter(short.values())
    taken: set[str] = set()
    chosen = {}
    for name, stem in short.items():
        path = stem if counts[stem] == 1 else safe_stem(name)
        number = 2
        while path in taken:  # names that differ only in what `safe_stem` takes away
            path, number = f"{safe_stem(name)}~{number}", number + 1
        taken.add(path)
        chosen[name] = path
    return chosen


def safe_stem(name: str) -> str:
    """A frame's name as a relative path that stays inside the folder it is put in."""
    parts = [part for part in name.replace("\0", "_").split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "_"


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
