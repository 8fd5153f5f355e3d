"""`python -m ndp_edge.bench.kernel_resources`: what each kernel takes of each GPU architecture.

Compiles the kernels with nvcc for every architecture, reads ptxas' account of registers, shared
memory and spills, and compares it with `kernels/resources.tsv` (or writes that file). A spill
fails, and so does a jump in registers: both are slow kernels that no numeric test would notice.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, fields, replace
from pathlib import Path

from ndp_edge.bench.ptxas import Usage, parse
from ndp_edge.console import info, progress, run_verb
from ndp_edge.errors import GateError, InputError, MachineError
from ndp_edge.files import write_atomic
from ndp_edge.native.compile import KERNELS, find_nvcc, kernels_folder

PROGRAM = "python -m ndp_edge.bench.kernel_resources"

ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
"""Compute capabilities without their dot, from Turing to Blackwell, the Jetsons among them."""

FLAGS = ("-std=c++17", "-O3", "-lineinfo")
"""As the library is compiled; neither a debug nor a fast-math build tells what it takes."""

LAUNCHED_WITH = {
    "rbfrm_shift": "0",
    "rbfrm_dots": "kDotsBytes<{0}>",
    "rbfrm_weights": "kWeightBytes",
    "rbfrm_blend": "blend_bytes<{0}>({2})",
    "ffm_select": "0",
    "smooth_tiles": "kTileBytes",
    "smooth_peak": "kWarps * sizeof(float)",
}
"""Bytes of shared memory of each launch, in the sources' words; {0}, ... template arguments."""

REGISTER_SLACK = 8
"""Registers by which a kernel may outgrow the table: ptxas allocates them by eights."""


COLUMNS = tuple(field.name for field in fields(Usage))

Table = dict[tuple[str, int], Usage]
"""(kernel with its template arguments, architecture) to what it takes."""


def parser() -> argparse.ArgumentParser:
    """What to do with the table, and for which architectures."""
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    action = p.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare with the table (default)")
    action.add_argument("--write", action="store_true", help="write the table; a spill still fails")
    p.add_argument(
        "--arch",
        type=_architectures,
        default=ARCHITECTURES,
        metavar="75,80,...",
        help="only these; default: %(default)s",
    )
    return p


def _architectures(text: str) -> tuple[int, ...]:
    chosen = tuple(int(part) if part.isdecimal() else 0 for part in text.split(","))
    if unknown := set(chosen) - set(ARCHITECTURES):
        raise argparse.ArgumentTypeError(f"{sorted(unknown)} of {text!r} not in {ARCHITECTURES}")
    return chosen


def measure(architectures: Iterable[int] = ARCHITECTURES) -> Table:
    """Compile every kernel for each architecture and read what it takes.

    Raises:
        MachineError: no compiler, or an nvcc too old for an architecture.
        GateError: a source that does not compile, a kernel that nothing is known of.
    """
    nvcc = find_nvcc()
    jobs = [(name, arch) for name in KERNELS for arch in architectures]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        logs = pool.map(lambda job: _compile(nvcc, *job), jobs)
        taken = [parse(log) for log in progress(logs, total=len(jobs), label="nvcc")]
    found: Table = {}
    for name in KERNELS:
        of_source = [(a, t) for (n, a), t in zip(jobs, taken, strict=True) if n == name]
        launched = launched_with(name, sorted({kernel for _, t in of_source for kernel in t}))
        for arch, kernels in of_source:
            for kernel, usage in kernels.items():
                if (kernel, arch) in found:
                    raise GateError(f"{kernel} on sm_{arch}: two kernels have this name")
                shared = usage.shared + launched[kernel]
                found[kernel, arch] = replace(usage, shared=shared)
    return found


def _compile(nvcc: str, name: str, architecture: int) -> str:
    """ptxas' words on one source for one architecture, names demangled."""
    target = f"arch=compute_{architecture},code=sm_{architecture}"
    source = kernels_folder() / "src" / name
    with tempfile.TemporaryDirectory() as folder:
        made = ["-Xptxas", "-v", "-cubin", "-o", f"{folder}/out.cubin", str(source)]
        done = _run([nvcc, *FLAGS, "-gencode", target, *made])
    if done.returncode == 0:
        return _run(["c++filt"], done.stderr).stdout
    errors = [line for line in done.stderr.splitlines() if "error" in line or "fatal" in line]
    said = (errors or ["nvcc failed and gave no reason"])[0]
    if "nsupported gpu" in said:
        raise MachineError(f"{nvcc} does not know sm_{architecture}: install CUDA 13.0 or later")
    raise GateError(f"{name} does not compile for sm_{architecture}: {said}")


def launched_with(source: str, kernels: Sequence[str]) -> dict[str, int]:
    """Bytes of shared memory that each kernel of one source is given when it is launched.

    ptxas cannot know them. The host compiler can: the sources have them as constants.

    Raises:
        GateError: a kernel that `LAUNCHED_WITH` does not name, or another constant there.
    """
    root, lines = kernels_folder(), []
    for kernel in kernels:
        name, *arguments = (
            kernel.replace("__half", "half").rstrip(">").replace("<", ", ").split(", ")
        )
        if name not in LAUNCHED_WITH:
            raise GateError(f"{kernel} of {source} is new: name it in LAUNCHED_WITH")
        lines.append(f'std::printf("%d\\n", int({LAUNCHED_WITH[name].format(*arguments)}));')
    body = "\n".join(lines)
    text = (
        f'#include <cstdio>\n#include "{source}"\nint main() {{ using namespace ndp;\n{body} }}\n'
    )
    with tempfile.TemporaryDirectory() as folder:
        probe, program = Path(folder) / "probe.cpp", Path(folder) / "probe"
        probe.write_text(text)
        paths = [
            "-I",
            str(root / "src"),
            "-I",
            str(root / "host"),
            str(root / "host" / "runner.cpp"),
        ]
        compiler = os.environ.get("CXX", "g++")
        flags = ["-std=c++17", "-DNDP_HOST", "-pthread", "-w", str(probe), "-o", str(program)]
        made = _run([compiler, *flags, *paths])
        if made.returncode:
            raise GateError(f"LAUNCHED_WITH does not fit {source}: {made.stderr}")
        numbers = _run([str(program)]).stdout.split()
    return dict(zip(kernels, map(int, numbers), strict=True))


def _run(command: Sequence[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MachineError(f"{command[0]} was not found: apt install binutils g++") from None


def compare(found: Mapping[tuple[str, int], Usage], table: Table) -> list[str]:
    """One line for everything that is wrong, each naming the kernel and its architecture."""
    lines = []
    for (kernel, arch), usage in sorted(found.items()):
        where = f"{kernel} on sm_{arch}"
        if usage.stack or usage.spill_stores or usage.spill_loads:
            lines.append(
                f"{where}: {usage.stack} bytes of stack, {usage.spill_stores} of spill stores, "
                f"{usage.spill_loads} of spill loads; wanted none"
            )
        known = table.get((kernel, arch))
        if known is None:
            lines.append(f"{where}: not in the table")
        elif usage.registers > known.registers + REGISTER_SLACK:
            lines.append(f"{where}: {usage.registers} registers, the table has {known.registers}")
        elif usage.shared > known.shared:
            lines.append(
                f"{where}: {usage.shared} bytes of shared memory, the table has {known.shared}"
            )
    architectures = {arch for _, arch in found}
    for kernel, arch in sorted(set(table) - set(found)):
        if arch in architectures:
            lines.append(f"{kernel} on sm_{arch}: in the table, but no such kernel was compiled")
    return lines


def table_text(found: Mapping[tuple[str, int], Usage], version: str) -> str:
    """The table as its file has it: nvcc's version, the command, a head, sorted rows."""
    command = f"nvcc {' '.join(FLAGS)} -gencode arch=compute_XX,code=sm_XX -Xptxas -v -cubin"
    rows = [("kernel", "sm", *COLUMNS)]
    for (kernel, arch), usage in sorted(found.items()):
        rows.append((kernel, str(arch), *map(str, astuple(usage))))
    body = ["\t".join(row) for row in rows]
    return "\n".join([f"# {version}", f"# {command}", *body]) + "\n"


def read_table(path: Path) -> Table:
    """The table that `table_text` wrote.

    Raises:
        MachineError: there is none.
        InputError: not such a file.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise MachineError(f"no {path}: {PROGRAM} --write") from None
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    if not rows or rows[0] != ["kernel", "sm", *COLUMNS]:
        raise InputError(f"{path} is not a table of resources; write it again with --write")
    try:
        return {(row[0], int(row[1])): Usage(*map(int, row[2:])) for row in rows[1:]}
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}; write it again with --write") from None


def nvcc_version() -> str:
    """nvcc's own version line, such as "Cuda compilation tools, release 13.0, V13.0.88"."""
    lines = _run([find_nvcc(), "--version"]).stdout.splitlines()
    return next((line for line in lines if "release" in line), "an unknown nvcc")


def run(args: argparse.Namespace) -> int:
    """Measure, then compare or write."""
    path = kernels_folder() / "resources.tsv"
    if args.write and set(args.arch) != set(ARCHITECTURES):
        raise InputError("--write measures every architecture: leave --arch out")
    found = measure(args.arch)
    table = found if args.write else read_table(path)
    wrong = compare(found, table)
    for line in wrong:
        info(line)
    if wrong:
        raise GateError(f"{len(wrong)} of {len(found)} kernels fall short of {path.name}")
    if args.write:
        write_atomic(path, table_text(found, nvcc_version()).encode())
    kernels = len({kernel for kernel, _ in found})
    architectures = len({arch for _, arch in found})
    print(f"{kernels} kernels on {architectures} architectures: no spill; {path}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
