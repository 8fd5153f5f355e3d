"""The report's blocks about NVIDIA GPUs: what `bench/gpu/verify.sh` found on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ndp_edge.bench.block import Block, Rows
from ndp_edge.bench.gpu import targets
from ndp_edge.bench.saved import Saved, of_kind

Lines = Callable[[dict[str, Any]], list[list[object]]]


def gpu_kernels(saved: Sequence[Saved]) -> Block:
    """Each kernel beside the same mathematics in torch."""
    return _block(saved, "gpu-kernels", "CUDA kernels on a GPU", targets.lines, _kernel_notes)


def gpu_nets(saved: Sequence[Saved]) -> Block:
    """The whole nets with and without the kernels."""
    return _block(saved, "gpu-nets", "Whole nets in torch on a GPU", targets.net_lines, _net_notes)


def gpu_targets(saved: Sequence[Saved]) -> Block:
    """What was wanted of the kernels, and what they reach."""
    return _block(saved, "gpu-targets", "The kernels' targets", targets.target_lines, _checks)


def _block(
    saved: Sequence[Saved], name: str, title: str, lines: Lines, notes: Callable[[Saved], str]
) -> Block:
    """The lines of every card; with several, its name comes first."""
    cards = of_kind(saved, "gpu")
    rows: Rows = []
    for one in cards:
        head, *found = [[_cell(cell) for cell in line] for line in lines(one.data)]
        if len(cards) > 1:
            head, found = ["", *head], [[one.data["device"], *line] for line in found]
        rows += found if rows else [head, *found]
    return Block(name, title, rows, tuple(notes(one) for one in cards))


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _kernel_notes(one: Saved) -> str:
    rates = next(row["measured"] for row in one.data["timings"] if row["name"] == "rates")
    return (
        f"{_where(one)}; FP16, batch x channels x side. graph: torch's own operations in a CUDA "
        "graph, the faster layout; prepared: the same with the reference's side taken out; "
        "compiled: torch.compile. Floor: operations or bytes at the rate of a large product "
        f"({rates['matmul_tflop_per_s']:.0f} TFLOP/s) or copy ({rates['copy_gb_per_s']:.0f} GB/s) "
        f"in the same run. {_file(one)}"
    )


def _net_notes(one: Saved) -> str:
    return (
        f"{_where(one)}; FP16, channels-last, batch 1, in a CUDA graph, without transfers, median "
        f"and threshold: torch, not TensorRT. {_file(one)}"
    )


def _checks(one: Saved) -> str:
    passed = sum(check["passed"] is True for check in one.data["checks"])
    return (
        f"{_where(one)}; {passed} of {len(one.data['checks'])} checks against `reference.py` "
        f"passed. {_file(one)}"
    )


def _where(one: Saved) -> str:
    found = one.data
    return f"{found['device']}, torch {found['torch']}, driver {found['driver']}; {found['date']}"


def _file(one: Saved) -> str:
    return f"File: `{one.name}`."
