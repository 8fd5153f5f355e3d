"""The issue's targets, judged on the measured rows; and the table at the end."""

from __future__ import annotations

from typing import Any

from ndp_edge.bench.gpu.words import NOT_MEASURED

Row = dict[str, Any]


def judge(report: Row) -> list[Row]:
    """Each target: what is wanted, the value, and met: true, false, or None (not measured)."""
    timings = [row for row in report["timings"] if "side" in row]
    rbfrm = [row for row in timings if row["name"] == "rbfrm"]
    select = [row for row in timings if row["name"] == "ffm_select" and row["batch"] == 1]
    faster = [row["measured"]["times_faster_than_graph"] for row in rbfrm]
    floor = [row["measured"]["times_the_floor"] for row in _largest(rbfrm)]
    share = [row["measured"]["share_of_copy_bandwidth"] for row in _largest(select)]
    # All three levels, or nothing is said: a run cut short has measured too few.
    whole = faster if len(faster) == 3 else []
    return [
        _target("rbfrm over decomposed FP16 in a graph, the least of three levels", 3.0, whole),
        _target("rbfrm over the floor at the largest level", 4.0, floor, most=True),
        _target("ffm_select's share of copy bandwidth at the largest level", 0.7, share),
        *_sanitizers(report["sanitizer"]),
    ]


def _largest(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -row["side"])[:1]


def _target(name: str, wanted: float, values: list[Any], most: bool = False) -> Row:
    """`values` must all be at least `wanted` (at most, if `most`)."""
    sign = "at most" if most else "at least"
    target: Row = {"target": name, "wanted": f"{sign} {wanted:g}"}
    if not values or not all(isinstance(value, float) for value in values):
        return target | {"value": NOT_MEASURED, "met": None}
    value = max(values) if most else min(values)
    return target | {"value": value, "met": value <= wanted if most else value >= wanted}


def _sanitizers(found: dict[str, Row]) -> list[Row]:
    rows = []
    for tool, said in found.items():
        met = {"clean": True, "errors": False}.get(said["status"])
        row = {"target": f"compute-sanitizer {tool}", "wanted": "clean", "value": said["status"]}
        rows.append(row | {"met": met})
    return rows


COLUMNS = {
    "kernel": "kernel_us",
    "graph": "decomposed_graph_us",
    "prepared": "decomposed_graph_reference_prepared_us",
    "eager": "decomposed_eager_us",
    "compiled": "compiled_us",
    "floor": "floor_us",
    "x graph": "times_faster_than_graph",
}


def lines(report: Row) -> list[list[object]]:
    """The table's rows of the kernels."""
    rows: list[list[object]] = [["microseconds", *COLUMNS]]
    for row in report["timings"]:
        if "kernel_us" in row["measured"]:
            size = "x".join(str(row[k]) for k in ("batch", "channels", "side") if k in row)
            values = [_short(row["measured"][key]) for key in COLUMNS.values()]
            rows.append([f"{row['name']} {size}", *values])
    return rows


def net_lines(report: Row) -> list[list[object]]:
    """The whole nets."""
    rows: list[list[object]] = [["milliseconds", "kernels", "decomposed", "eager", "x decomposed"]]
    keys = ("with_kernels_ms", "decomposed_ms", "eager_ms", "times_faster_than_decomposed")
    for row in report["timings"]:
        if row["name"] == "network":
            label = f"{row['preset']} {row['side']}x{row['side']}"
            rows.append([label, *(_short(row["measured"][key]) for key in keys)])
    return rows


def target_lines(report: Row) -> list[list[object]]:
    """The targets."""
    words = {True: "met", False: "MISSED", None: NOT_MEASURED}
    rows: list[list[object]] = [["target", "wanted", "value", ""]]
    for one in report["targets"]:
        rows.append([one["target"], one["wanted"], one["value"], words[one["met"]]])
    return rows


def _short(value: object) -> object:
    return NOT_MEASURED if isinstance(value, str) else value
