"""Did yesterday's change cost speed or accuracy? One run against a saved one.

Speed: each row's time over the reference work's, round by round, this run's against the
baseline's: a factor with one-sided bounds (`figures.change`), once by the clock and once by
processor time. A row has regressed when chance is no explanation for a factor above
1 + max_regress, that is

    factor.low / allowance > 1 + max_regress                                        or
    cpu_factor.low / cpu_allowance > 1 + max_regress  and
        factor.high * allowance > 1 + max_regress.

The allowances are for neighbours. Where others have the cores for most of the time, the clock's
ratio wanders by a fifth from minute to minute, which no number of rounds shows; where nobody
waits they are 1. Processor time does not count the turns that neighbours took, so the second line
finds added work in any weather, unless the clock contradicts it. What only waits (a lock, a
lost thread) takes no processor time: the first line finds it, on a device that is not busy.

Where neighbours leave the cores alone but share caches and memory, both ratios can lie off by a
sixth for half a minute, with next to no spread. So rounds keep a distance (`--every`), and what
has regressed is looked at again later: an alarm needs the rounds of both looks together to say so,
and those of the second alone to lie above the limit (`confirm`).

Accuracy: the gate's own rules (`calib.gate`), the baseline in FP32's place. Figures compare
only under one key (device, engine, versions, net): another one is refused, not guessed about.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from ndp_edge.bench.baseline import check_keys, figures
from ndp_edge.bench.figures import Interval, change
from ndp_edge.calib.gate import judge
from ndp_edge.errors import InputError

CONFIDENCE = 0.95
"""Of the one-sided bound. At the limit itself one run in twenty is called a regression;
without any change the limit lies further off, and the count is far smaller."""

WANDER = 0.35
"""By how much the clock's ratio may be off where others have the cores all the time: it went
from 1.67 to 2.12 in eleven runs of `nano` INT8 on two cores at load averages of 11 to 15."""

CPU_WANDER = 0.025
"""The same of the processor time's ratio. Chosen on bench/results/gate_trial.json: judged again,
false alarms among all pairs fell from 16 to 2 of 1275, found from 500 to 493 of 510."""

REGRESSED, UNDECIDED, BY_WORK, PASSED = "regressed", "undecided", "ok by CPU time", "ok"
ONCE = "ok at a second look"

BUSY = 0.2
"""Share of the time in which others have the cores that makes more rounds useless to the clock."""


@dataclass(frozen=True)
class Speed:
    """One row's comparison.

    Attributes:
        label: the row's.
        before_ms, now_ms: p50 of each run, as measured.
        factor: how many times slower than the baseline, the machine's own speed divided out.
        cpu_factor: the same of processor time; None on a card.
        allowance: for neighbours, at least 1.
        waited: the share of the time in which others had the cores, in the busier run; None
            on a card.
        limit: 1 + max_regress.
        verdict: "regressed": certain; "undecided": the factor may lie above the limit, more
            rounds may tell; "ok by CPU time": others had the cores for too much of the time
            for the clock to tell, and processor time lies below; "ok": the clock's does.
    """

    label: str
    before_ms: float
    now_ms: float
    factor: Interval
    cpu_factor: Interval | None
    allowance: float
    waited: float | None
    limit: float
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        cpu = self.cpu_factor.rounded() if self.cpu_factor else None
        return asdict(self) | {"factor": self.factor.rounded(), "cpu_factor": cpu}


@dataclass(frozen=True)
class Comparison:
    """Everything that a baseline has to say about a run."""

    speed: list[Speed]
    accuracy: list[dict[str, Any]]
    notes: list[str]

    @property
    def passed(self) -> bool:
        """No row is certain to have regressed, no metric fell below its limit."""
        return not self.slower and all(row["passed"] is not False for row in self.accuracy)

    @property
    def slower(self) -> bool:
        """A row has regressed in speed."""
        return any(one.verdict == REGRESSED for one in self.speed)

    @property
    def undecided(self) -> bool:
        """More rounds might tell more."""
        return any(one.verdict == UNDECIDED for one in self.speed)

    def reason(self) -> str:
        """What regressed, in one line; empty when nothing did."""
        slow = [
            f"{one.label} takes {one.factor.point:.2f} times as long as in the baseline"
            f"{_work(one.cpu_factor)}, allowed is {one.limit:.2f}"
            for one in self.speed
            if one.verdict == REGRESSED
        ]
        worse = [
            f"{row['precision']} {row['metric']} went from {row['before']} to {row['now']}"
            for row in self.accuracy
            if row["passed"] is False
        ]
        return "; ".join(slow + worse)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "passed": self.passed,
            "reason": self.reason(),
            "speed": [one.to_dict() for one in self.speed],
            "accuracy": self.accuracy,
            "notes": self.notes,
        }


def compare(
    before: dict[str, Any], now: dict[str, Any], *, max_regress: float, max_drop: float
) -> Comparison:
    """A run against a saved one.

    Args:
        before, now: as `result.result` makes them.
        max_regress: how much slower a row may become, 0.1 for a tenth.
        max_drop: how much an area or a rate may lose, as `build --max-drop`.

    Raises:
        InputError: they have no row in common, a row's key differs, or accuracy was measured
            on other pictures.
    """
    saved = {row["label"]: row for row in before["rows"]}
    labels = check_keys(before, {row["label"]: row["key"] for row in now["rows"]})
    speed = [_speed(saved[r["label"]], r, max_regress) for r in now["rows"] if r["label"] in labels]
    notes = [
        f"{label}: in one of the two runs only, not compared"
        for label in dict.fromkeys([*saved, *(row["label"] for row in now["rows"])])
        if label not in labels
    ]
    accuracy, told = compare_accuracy(before.get("accuracy"), now.get("accuracy"), max_drop)
    return Comparison(speed, accuracy, notes + told)


def confirm(
    before: dict[str, Any], now: dict[str, Any], first: Comparison, last: int, *, max_regress: float
) -> Comparison:
    """What stays of a comparison after a second look.

    Args:
        before: the baseline.
        now: the run with the rounds of all looks.
        first: the comparison at the looks before.
        last: how many of the rounds, at the end, are of the second look.
        max_regress: as in `compare`.
    """
    saved = {row["label"]: row for row in before["rows"]}
    runs = {row["label"]: row for row in now["rows"]}

    def again(one: Speed) -> Speed:
        row = runs[one.label]
        pooled = _speed(saved[one.label], row, max_regress)
        if one.verdict != REGRESSED:
            return replace(pooled, verdict=one.verdict)
        alone = _speed(saved[one.label], row | {"rounds": row["rounds"][-last:]}, max_regress)
        points = [f.point for f in (alone.factor, alone.cpu_factor) if f is not None]
        stays = pooled.verdict == REGRESSED and max(points) > alone.limit
        return replace(pooled, verdict=REGRESSED if stays else ONCE)

    return replace(first, speed=[again(one) for one in first.speed])


def compare_accuracy(
    before: dict[str, Any] | None, now: dict[str, Any] | None, max_drop: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows per precision and metric, and notes.

    Raises:
        InputError: the pictures behind the figures differ.
    """
    if before is None or now is None:
        return [], ["accuracy: not compared, both runs must be of a bundle"]
    if before["pictures"] != now["pictures"]:
        raise InputError(
            "accuracy cannot be compared: the bundle was judged on other pictures than the "
            "baseline's; save a new baseline with --json"
        )
    rows = []
    for precision, metrics in now["metrics"].items():
        earlier = before["metrics"].get(precision, {})
        if not any(value is not None for value in earlier.values()):
            continue
        verdict = judge(
            earlier,
            metrics,
            max_drop,
            n_good=now["good"],
            n_defective=now["defective"],
            name="now",
        )
        rows += [
            {"precision": precision, "before": row["fp32"]}
            | {k: row[k] for k in ("metric", "now", "worse", "limit", "passed")}
            for row in verdict.rows
        ]
    absent = ["accuracy: not compared, the baseline has no metric that this bundle has"]
    return rows, [] if rows else absent


def _speed(before: dict[str, Any], now: dict[str, Any], max_regress: float) -> Speed:
    limit, key = 1 + max_regress, now["compares"]
    factor = change(figures(before, key), figures(now, key), CONFIDENCE)
    cpu, allowance, busy = None, 1.0, None
    if key == "ratio":
        cpu = change(figures(before, "cpu_ratio"), figures(now, "cpu_ratio"), CONFIDENCE)
        busy = max(waited(before), waited(now))
        allowance = 1 + WANDER * busy
    added_work = False
    if cpu is not None and busy is not None:
        certain = cpu.low / (1 + CPU_WANDER * busy) > limit
        added_work = certain and factor.high * allowance > limit
    if factor.low / allowance > limit or added_work:
        verdict = REGRESSED
    elif factor.high <= limit:
        verdict = PASSED
    elif cpu is not None and cpu.high <= limit and busy is not None and busy > BUSY:
        verdict = BY_WORK
    else:
        verdict = UNDECIDED
    earlier_ms, ms = float(before["latency_ms"]["p50"]), float(now["latency_ms"]["p50"])
    return Speed(now["label"], earlier_ms, ms, factor, cpu, allowance, busy, limit, verdict)


def _work(cpu: Interval | None) -> str:
    return f" and {cpu.point:.2f} times the processor time" if cpu else ""


def waited(row: dict[str, Any]) -> float:
    """The share of time in which others had the cores, 0 to 1; where Linux does not tell, half."""
    told = [float(one["waited"]) for one in row["rounds"] if "waited" in one]
    return median(told) if told else 0.5
