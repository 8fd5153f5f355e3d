"""`python -m ndp_edge.bench.gpu.build OUT.json [--host]`: the library that the other steps load."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ndp_edge.console import info, run_verb
from ndp_edge.errors import MachineError
from ndp_edge.native.compile import build_device, build_host


def built(host: bool) -> Path:
    """The library's path. Raises MachineError: no GPU, or no compiler that takes the sources."""
    if host:
        return build_host()
    import torch

    if not torch.cuda.is_available():
        raise MachineError(
            "torch sees no CUDA device; without one: bash bench/gpu/verify.sh --dry-run"
        )
    major, minor = torch.cuda.get_device_capability()
    return build_device(10 * major + minor)


def run(args: argparse.Namespace) -> int:
    """Build and say where it is."""
    path = built(args.host)
    args.out.write_text(json.dumps({"library": str(path)}) + "\n")
    info(f"built {path}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.gpu.build", description=__doc__)
    p.add_argument("out", type=Path)
    p.add_argument("--host", action="store_true")
    args = p.parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
