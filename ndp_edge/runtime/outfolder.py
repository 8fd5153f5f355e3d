"""The folder that a run writes into: made, refused, replaced, or gone on with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ndp_edge.errors import InputError
from ndp_edge.runtime.linelog import lock, read_lines
from ndp_edge.runtime.sinks import DROPS, MAPS, MASKS, OVERLAYS, RESULTS, SUMMARY
from ndp_edge.runtime.summary import Summary

_RESULT = ("frame", "verdict", "bundle", "latency_ms")
_DROP = ("frame", "time", "why")


@dataclass
class Past:
    """What earlier runs left in the folder.

    Attributes:
        names: frames that have a verdict or were dropped.
        summary: their counts.
        threshold: where somebody left it; None when nobody touched it.
    """

    names: list[str] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)
    threshold: float | None = None


def check_out(out: Path, *, force: bool, resume: bool) -> None:
    """See whether a run may write into `out`; changes nothing.

    Raises:
        InputError: it holds something that this run must not touch.
    """
    results = out / RESULTS
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")
    if resume and not results.is_file():
        raise InputError(f"{out} holds no {RESULTS} to resume; leave out --resume")
    if results.exists():
        if not force and not resume:
            raise InputError(
                f"{out} holds results already; --resume goes on, --force replaces them"
            )
        _check_idle(results)
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out} is not empty and holds no results; name another folder")


def read_past(out: Path, bundle: str) -> Past:
    """What is in the folder to go on behind; lines that a power cut tore are cut off.

    Raises:
        InputError: another bundle made the results, or they are none of ours.
    """
    past = Past()
    for line in _results(out / RESULTS, bundle):
        past.summary.add(line)
        if "audit" in line:
            past.threshold = line.get("to", past.threshold)
        else:
            past.names.append(line["frame"])
    if (out / DROPS).is_file():
        for line in read_lines(out / DROPS, _DROP):
            past.summary.drop(line["why"])
            past.names.append(line["frame"])
    return past


def clear_out(out: Path) -> None:
    """Make the folder; remove the results, and nothing else, that are in it.

    Raises:
        InputError: another run has begun to write there since `check_out` looked.
    """
    if (out / RESULTS).exists():
        _check_idle(out / RESULTS)
    for name in (RESULTS, DROPS, SUMMARY):
        (out / name).unlink(missing_ok=True)
    for name in (OVERLAYS, MAPS, MASKS):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)


def _results(path: Path, bundle: str) -> Iterator[dict[str, Any]]:
    for line in read_lines(path, _RESULT):
        if line.get("bundle", bundle) != bundle:
            raise InputError(f"{path} was made by another bundle; use another --out")
        yield line


def _check_idle(results: Path) -> None:
    """Raises InputError while another run writes the file (`LineLog` holds a lock on it)."""
    descriptor = os.open(results, os.O_RDONLY)
    try:
        lock(descriptor, results)
    finally:
        os.close(descriptor)
