"""A saved run: read, and held against another by what must be equal before they compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ndp_edge.bench.result import KIND
from ndp_edge.errors import InputError

LIMIT_BYTES = 64 << 20


def read_baseline(path: Path) -> dict[str, Any]:
    """A saved run.

    Raises:
        InputError: no such file, or not one that `--json` of this command wrote.
    """
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise InputError(f"{path} is too large to be a saved run of ndp_edge.bench")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"no baseline at {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error}); save a run with --json") from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise InputError(f"{path} is not a saved run of ndp_edge.bench ({KIND}); save one: --json")
    try:
        for row in found["rows"]:
            for name in ("ms", "reference_ms", "ratio", "cpu_ratio"):
                figures(row, name)
            dict(row["key"])
            str(row["label"]), float(row["latency_ms"]["p50"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error!r}); save the run again: --json") from error
    return found


def check_keys(before: dict[str, Any], now: dict[str, dict[str, Any]]) -> set[str]:
    """The labels of the rows that a saved run and one to come (label -> key) share.

    Raises:
        InputError: none, or a row's key differs.
    """
    saved = {row["label"]: row["key"] for row in before["rows"]}
    shared = {label for label in now if label in saved}
    if not shared:
        raise InputError(
            f"the baseline has {', '.join(saved) or 'no row'}, this run {', '.join(now)}: "
            "nothing to compare"
        )
    for label, key in now.items():
        if label in shared:
            check_key(label, saved[label], key)
    return shared


def check_key(label: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """See that two rows may be compared.

    Raises:
        InputError: they may not; one line names each difference.
    """
    differing = [
        f"{name} {before.get(name)!r} then, {now.get(name)!r} now"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    if differing:
        raise InputError(
            f"{label} cannot be compared with this baseline: {'; '.join(differing)}; "
            "save a new baseline here with --json"
        )


def figures(row: dict[str, Any], key: str) -> list[float]:
    """One figure of every round."""
    found = [float(one[key]) for one in row["rounds"]]
    if not found or not all(0 < value < float("inf") for value in found):
        raise ValueError(f"rounds of {row['label']}")
    return found
