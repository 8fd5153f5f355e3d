"""ptxas' account of what each kernel takes, read from what nvcc prints with `-Xptxas -v`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ndp_edge.errors import GateError


@dataclass(frozen=True)
class Usage:
    """What one kernel takes.

    Attributes:
        registers: per thread.
        shared: bytes of shared memory per block.
        constant: bytes of constant memory, as far as ptxas tells (from sm_90 on it does not).
        stack: bytes of stack per thread.
        spill_stores, spill_loads: bytes moved per thread for want of registers.
    """

    registers: int
    shared: int
    constant: int
    stack: int
    spill_stores: int
    spill_loads: int


def parse(log: str) -> dict[str, Usage]:
    """Kernels and what they take, from the demangled output of `-Xptxas -v`.

    A device function that was not inlined is listed too, with 0 registers: its caller's line
    has the registers, but a spill of its own stands only beside its own name.

    Raises:
        GateError: no kernel, or one without the lines that tell what it takes.
    """
    entries, frames, used = [], {}, {}
    entry = name = ""
    for line in log.splitlines():
        if found := re.search(r": Compiling entry function '(.+)' for", line):
            entry = readable(found[1])
            entries.append(entry)
        elif found := re.search(r": Function properties for (.+)", line):
            name = readable(found[1])
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) .* stores, (\d+) .* loads", line):
            frames[name] = [int(number) for number in found.groups()]
        elif re.search(r": Used \d+ registers", line):
            used[entry] = [_number(line, unit) for unit in _USED]
    if not entries:
        raise GateError("ptxas compiled no kernel")
    for entry in entries:
        if entry not in frames or entry not in used:
            raise GateError(f"ptxas did not say what {entry} takes")
    return {name: Usage(*used.get(name, [0, 0, 0]), *frame) for name, frame in frames.items()}


_USED = ("registers", "bytes smem", r"bytes cmem\[\d+\]")


def _number(line: str, unit: str) -> int:
    """What stands before `unit`, added up where it stands more than once (banks of memory)."""
    return sum(map(int, re.findall(rf"(\d+) {unit}", line)))


def readable(name: str) -> str:
    """A kernel and its template arguments: no return type, casts, outer name spaces, parameters.

    "void ndp::(anonymous namespace)::scale<float, (Layout)1>(float*)" is "scale<float, 1>".
    """
    name = re.sub(r"\(anonymous namespace\)::|\bndp::", "", name)
    name = re.sub(r"\([\w:]+\)(?=-?\d)", "", name).removeprefix("void ")
    depth = 0
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return name[:i]
    return name
