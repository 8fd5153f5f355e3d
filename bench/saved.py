"""The JSON files of a results folder: which command wrote each, and the latencies in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ndp_edge.errors import InputError


class Saved(NamedTuple):
    """One file.

    Attributes:
        name: the file's, without folder.
        kind: "build", "bench", "int8_speed", "int8_ceiling", "paper", "speed", "gate_trial",
            "machines"; "other" for what no block here knows.
        data: its content.
        isa: the most that the processor behind it can do for int8, such as "AVX-512 VNNI";
            empty where nothing tells.
    """

    name: str
    kind: str
    data: dict[str, Any]
    isa: str = ""

    def on(self, device: Any) -> str:
        """A processor of this file by name and by what int8 speed hangs on."""
        return f"{device or '?'} ({self.isa})" if self.isa else str(device or "?")


class Latency(NamedTuple):
    """One measured latency: milliseconds per 256 x 256 image at batch 1, p50 or median.

    Attributes:
        net: preset, and the data where a build measured it.
        device: as the engine names it.
        runtime: such as "openvino int8".
        ms: with `low` and `high` (95 %) where the file has an interval.
        source: the file.
    """

    net: str
    device: str
    runtime: str
    ms: float
    low: float | None
    high: float | None
    source: str


def read_results(folder: Path) -> list[Saved]:
    """Every JSON file of a folder, in the order of their names.

    Raises:
        InputError: no such folder, no JSON file in it, or one that is not a JSON object.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    found = [_read(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise InputError(f"no JSON file in {folder}; bench and build write them with --json")
    return [one._replace(isa=_isa(one, found)) for one in found]


def _isa(one: Saved, saved: Sequence[Saved]) -> str:
    """As the file tells it, else as a "machines" file tells it of the day."""
    machine = one.data.get("machine")
    told = machine.get("isa") if isinstance(machine, dict) else one.data.get("isa")
    day = str(one.data.get("created", one.data.get("date", "")))[:10]
    for other in of_kind(saved, "machines"):
        told = told or other.data["by_day"].get(day)
    return str(told[-1]) if told else ""


def _read(path: Path) -> Saved:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no JSON object; it is not a report of ours")
    return Saved(path.name, _kind(data), data)


def _kind(data: dict[str, Any]) -> str:
    """By what the report calls itself, or by the keys of those that do not say."""
    named = str(data.get("kind", ""))
    for kind in ("bench", "paper", "speed", "machines"):
        if named.startswith(f"ndp-edge-{kind}-"):
            return kind
    for kind, is_it in _BY_KEYS.items():
        if is_it(data):
            return kind
    return "other"


def _all_have(data: dict[str, Any], where: str, *keys: str) -> bool:
    rows = data.get(where)
    if not isinstance(rows, list) or not rows:
        return False
    return all(isinstance(row, dict) and set(keys) <= row.keys() for row in rows)


_BY_KEYS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "build": lambda d: isinstance(d.get("metrics"), dict) and isinstance(d.get("model"), dict),
    "gate_trial": lambda d: {"false_alarms", "found", "all_pairs"} <= d.keys(),
    "gpu": lambda d: {"sanitizer", "timings", "targets"} <= d.keys(),
    "train_speed": lambda d: _all_have(d, "rows", "images_per_s"),
    "trainings": lambda d: _all_have(d, "rows", "recipe", "seeds"),
    "int8_speed": lambda d: _all_have(d, "results", "speed_over_fp32"),
    "int8_ceiling": lambda d: _all_have(d, "results", "int8_over_fp32"),
}


def of_kind(saved: Sequence[Saved], kind: str) -> list[Saved]:
    """Those that one command wrote."""
    return [one for one in saved if one.kind == kind]


def data_name(data: dict[str, Any]) -> str:
    """What a build was judged on, for people: its title's part between "on" and the colon."""
    title = str(data.get("title", ""))
    middle = title.partition(" on ")[2].partition(":")[0]
    name = middle or str(data["model"].get("data") or "?")
    head, _, tail = name.rpartition("-")
    # A drawn surface carries twelve digits of its hash.
    return head if len(tail) == 12 and all(c in "0123456789abcdef" for c in tail) else name


def latencies(saved: Sequence[Saved]) -> list[Latency]:
    """Every latency at batch 1 that the files hold."""
    found = []
    for one in saved:
        if one.kind == "build":
            found += _of_build(one)
        elif one.kind == "int8_speed":
            found += _of_speed(one)
        elif one.kind == "bench":
            found += _of_bench(one)
    return found


def _of_build(one: Saved) -> list[Latency]:
    net = f"{one.data['model'].get('preset', '?')}, {data_name(one.data)}"
    return [
        Latency(
            net,
            one.on(metrics.get("device")),
            f"{metrics.get('backend', '?')} {precision}",
            metrics["latency_ms"]["p50"],
            None,
            None,
            one.name,
        )
        for precision, metrics in one.data["metrics"].items()
        if (metrics.get("latency_ms") or {}).get("p50")
    ]


def _of_speed(one: Saved) -> list[Latency]:
    return [
        Latency(
            result["preset"], one.on(result["device"]), f"openvino {name}", ms, None, None, one.name
        )
        for result in one.data["results"]
        for name, ms in result["ms_p50"].items()
    ]


def _of_bench(one: Saved) -> list[Latency]:
    preset, found = one.data["net"]["preset"], []
    for row in one.data["rows"]:
        # A row that is not named after its backend is another paper's net.
        device = row["key"]["device"]
        ours = row["name"] == f"{row['backend']}-{row['precision']}"
        if row["batch"] == 1:
            spread = row["ms_interval"]
            found.append(
                Latency(
                    preset if ours else row["name"],
                    one.on(device) if row["compares"] == "ratio" else device,
                    f"{row['backend']} {row['precision']}, decoded frame to verdict",
                    row["latency_ms"]["p50"],
                    spread["low"],
                    spread["high"],
                    one.name,
                )
            )
    return found
