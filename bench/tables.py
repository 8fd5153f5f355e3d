"""A run for people: aligned columns for a terminal, Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ndp_edge.console import table

Cell = Callable[[dict[str, Any]], str]

NOT_TOLD = "not told"


def _ms(value: float) -> str:
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def _interval(found: dict[str, float]) -> str:
    return f"{_ms(found['low'])} to {_ms(found['high'])}"


def _gain(name: str) -> Cell:
    def cell(row: dict[str, Any]) -> str:
        found = row["faster_than"].get(name)
        if found is None:
            return "1" if row["name"] == name else "-"
        return f"{found['point']:.2f} ({found['low']:.2f} to {found['high']:.2f})"

    return cell


def _area(name: str) -> Cell:
    def cell(row: dict[str, Any]) -> str:
        return _figure(row.get("accuracy", {}).get(name))

    return cell


def columns(report: dict[str, Any]) -> list[tuple[str, Cell]]:
    """Headings and what stands below them; speed columns only for rows that are in the run."""
    found: list[tuple[str, Cell]] = [
        ("engine", lambda row: str(row["label"])),
        ("ms p50", lambda row: _ms(row["latency_ms"]["p50"])),
        ("95 %", lambda row: _interval(row["ms_interval"])),
        ("p95", lambda row: _ms(row["latency_ms"]["p95"])),
        ("p99", lambda row: _ms(row["latency_ms"]["p99"])),
        ("prepare", lambda row: _ms(row["stages_ms"]["prepare"]["p50"])),
        ("infer", lambda row: _ms(row["stages_ms"]["infer"]["p50"])),
        ("judge", lambda row: _ms(row["stages_ms"]["judge"]["p50"])),
    ]
    against = dict.fromkeys(name for row in report["rows"] for name in row["faster_than"])
    found += [(f"x {name}", _gain(name)) for name in against]
    if any("accuracy" in row for row in report["rows"]):
        named = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
        found += [(title, _area(key)) for key, title in named.items()]
    if any(row["batch"] != 1 for row in report["rows"]):
        found.append(("ms a frame", lambda row: _ms(row["ms_per_frame"])))
    if report["energy"] != NOT_TOLD:
        found.append(("J a frame", lambda row: str(row["joules_per_frame"])))
    return found


def rows(report: dict[str, Any], wanted: tuple[str, ...] = ("",)) -> list[list[str]]:
    """Headings, then one line per row; of the columns whose heading begins as one wanted."""
    chosen = [pair for pair in columns(report) if pair[0].startswith(wanted)]
    head = [name for name, _ in chosen]
    return [head, *([cell(row) for _, cell in chosen] for row in report["rows"])]


def short_rows(report: dict[str, Any]) -> list[list[str]]:
    """The columns that a reader compares by: time, how many times faster, accuracy."""
    wanted = ("engine", "ms p50", "95 %", "x ", "image AUROC", "pixel AUROC", "AUPRO")
    return rows(report, wanted)


TRIAL = ("unchanged", "false_alarms", "planted", "found")
TRIAL_HEAD = ["", *(key.replace("_", " ") for key in TRIAL)]


def trial_rows(trial: dict[str, Any]) -> list[list[str]]:
    """Counts of a trial of the regression gate (`bench.gate_trial`), under TRIAL_HEAD."""
    lines = (("against one baseline", trial), ("every pair", trial["all_pairs"]))
    return [[name, *(str(found[key]) for key in TRIAL)] for name, found in lines]


def part_rows(report: dict[str, Any]) -> list[list[str]]:
    """Shares of the net's time in OpenVINO by part, one line per precision."""
    found: list[list[str]] = []
    for precision, parts in report["net_parts_ms"].items():
        total = sum(parts.values()) or 1.0
        found = found or [["share of the net", *parts]]
        shares = (f"{100 * ms / total:.0f} %" for ms in parts.values())
        found.append([f"openvino-{precision}", *shares])
    return found


def about(report: dict[str, Any]) -> list[str]:
    """What the figures hang on, a line each."""
    machine, net, settings = report["machine"], report["net"], report["settings"]
    versions: dict[str, str] = {}
    for row in report["rows"]:
        versions |= {k: v.partition("-")[0] for k, v in row["key"]["versions"].items()}
    isa = f" ({', '.join(machine['isa'])})" if machine["isa"] else ""
    return [
        f"{machine['cpu']}{isa}, {machine['cores']} cores, load average {report['load_average']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"{net['preset']} {net['image_size']} px ({net['source']}); {settings['rounds']} rounds of "
        f"{settings['runs']} calls, {report['latency']}; intervals from rounds",
        f"clock MHz: {_told(report['clock_mhz'])}; temperature C: {_told(report['celsius'])}; "
        f"energy: {report['energy']}",
    ]


def _told(found: dict[str, list[float]] | str) -> str:
    if isinstance(found, str):
        return found
    return ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in found.items())


def terminal(report: dict[str, Any]) -> str:
    """The whole run for a terminal."""
    parts = [table(rows(report)), *about(report)]
    if "net_parts_ms" in report:
        parts += ["", table(part_rows(report)), ""]
    parts += [f"note: {note}" for note in report["notes"]]
    compared = report.get("baseline")
    if compared:
        parts += ["", table(speed_rows(compared))]
        if compared["accuracy"]:
            parts += ["", table(accuracy_rows(compared))]
        parts += [f"note: {note}" for note in compared["notes"]]
    return "\n".join(parts)


def speed_rows(compared: dict[str, Any]) -> list[list[str]]:
    """The comparison with a baseline, one line per row."""
    head = [
        "engine",
        "baseline ms",
        "now ms",
        "time x",
        "at least",
        "CPU time x",
        "allowed",
        "waited",
    ]
    found = [[*head, "verdict"]]
    for one in compared["speed"]:
        factor, cpu = one["factor"], one["cpu_factor"]
        figures = (factor["point"], factor["low"] / one["allowance"])
        work = f"{cpu['point']:.3f}" if cpu else "-"
        busy = "-" if one["waited"] is None else f"{100 * one['waited']:.0f} %"
        shown = [*(f"{v:.3f}" for v in figures), work, f"{one['limit']:.3f}", busy]
        ms = _ms(one["before_ms"]), _ms(one["now_ms"])
        found.append([one["label"], *ms, *shown, one["verdict"]])
    return found


def accuracy_rows(compared: dict[str, Any]) -> list[list[str]]:
    """Accuracy against a baseline, one line per precision and metric."""
    found = [["precision", "metric", "baseline", "now", "worse by", "allowed", "verdict"]]
    for row in compared["accuracy"]:
        verdict = {True: "ok", False: "fell short", None: "not judged"}[row["passed"]]
        figures = (row["before"], row["now"], row["worse"], row["limit"])
        found.append([row["precision"], row["metric"], *map(_figure, figures), verdict])
    return found


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value + 0.0:.4f}"


def markdown_table(cells: Sequence[Iterable[str]]) -> str:
    """Rows of cells as a Markdown table: the first row is the head, the first column left."""
    lines = ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in cells]
    width = len(list(cells[0]))
    return "\n".join([lines[0], "|" + "|".join(["---", *["---:"] * (width - 1)]) + "|", *lines[1:]])


def markdown(report: dict[str, Any]) -> str:
    """The whole run for a pull request: the verdict first, then the tables."""
    compared = report.get("baseline")
    parts = ["### ndp-edge bench", ""]
    if compared:
        told = "no regression" if compared["passed"] else f"**regression**: {compared['reason']}"
        parts += [f"{told[0].upper()}{told[1:]}.", "", markdown_table(speed_rows(compared)), ""]
        if compared["accuracy"]:
            parts += [markdown_table(accuracy_rows(compared)), ""]
    parts += [markdown_table(rows(report)), ""]
    if "net_parts_ms" in report:
        parts += [markdown_table(part_rows(report)), ""]
    parts += [f"- {line}" for line in about(report)]
    notes = report["notes"] + (compared["notes"] if compared else [])
    return "\n".join([*parts, *(f"- {note}" for note in notes), ""])
