"""`ndp-edge <verb>`: finds the verb's module, imports it and nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from ndp_edge import __version__

VERBS = {
    "train": ("ndp_edge.train", "photographs of good product -> a checkpoint (needs torch)"),
    "build": ("ndp_edge.build", "a net and photographs -> a proven bundle, INT8 behind a gate"),
    "evaluate": ("ndp_edge.evaluate", "a bundle's accuracy and latency on a test folder"),
    "verify": ("ndp_edge.verify", "does a bundle still answer, here, as it did when built?"),
    "run": ("ndp_edge.run", "a bundle over a folder of frames: verdicts, overlays, maps"),
    "bench": ("ndp_edge.bench.__main__", "latency of every engine here, against a saved run too"),
    "doctor": ("ndp_edge.doctor", "what this machine has, and which engine it would take"),
    "export": ("ndp_edge.export.__main__", "a checkpoint -> ONNX, checked against torch"),
}
"""Verb -> (module with main(argv) -> exit code, what --help says)."""

EXIT_USAGE = 2


def usage() -> str:
    """The whole help text."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            "usage: ndp-edge <verb> [options]    (ndp-edge <verb> --help tells a verb's options)",
            "",
            *lines,
            "",
            "  --version  the package's version",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run one verb; 2 for none or an unknown one."""
    words = sys.argv[1:] if argv is None else argv
    if not words:
        print(usage(), file=sys.stderr)
        return EXIT_USAGE
    verb, rest = words[0], words[1:]
    if verb in ("-h", "--help", "help"):
        print(usage())
        return 0
    if verb in ("-V", "--version"):
        print(f"ndp-edge {__version__}")
        return 0
    if verb not in VERBS:
        known = ", ".join(VERBS)
        print(f"error: no verb {verb!r}; there are {known} (ndp-edge --help)", file=sys.stderr)
        return EXIT_USAGE
    module = importlib.import_module(VERBS[verb][0])
    run: Callable[[list[str]], int] = module.main
    return run(rest)


if __name__ == "__main__":
    raise SystemExit(main())
