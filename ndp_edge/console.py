"""What every verb shares at the terminal: exit codes, messages, progress and JSON.

stdout carries a verb's result and nothing else; messages and progress go to stderr.
"""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO, TypeVar

from ndp_edge.errors import NdpError
from ndp_edge.files import check_target, write_atomic

T = TypeVar("T")

EXIT_USER = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
"""What a shell reports for a process that wrote into a closed pipe."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def run_verb(function: Callable[[], int | None]) -> int:
    """Run a verb's body and turn its errors into an exit code and one line on stderr.

    NdpError gives its own exit code; a full disk or a path the user may not touch gives 2;
    Ctrl-C gives 130. Anything else is a bug of ours and keeps its traceback.
    """
    try:
        return function() or 0
    except NdpError as error:
        info(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        info("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python flushes stdout once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as error:
        if error.errno in _FULL:
            info(f"error: the disk is full{_where(error)}; free some space and run again")
            return EXIT_USER
        if error.errno in _FORBIDDEN:
            info(f"error: {error.strerror}{_where(error)}; choose a path you may use")
            return EXIT_USER
        raise


def _where(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def info(message: str) -> None:
    """One line to stderr; newlines in the message become spaces."""
    print(" ".join(str(message).split()), file=sys.stderr, flush=True)


def progress(items: Iterable[T], *, total: int | None = None, label: str = "") -> Iterable[T]:
    """`items` behind a progress bar with the time left, on stderr."""
    moving: Iterable[T] = bar(items, total=total, label=label)
    return moving


def bar(items: Any = None, *, total: int | None = None, label: str = "") -> Any:
    """A tqdm bar on stderr, to iterate or to `update` by hand in a `with` block."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    return tqdm(
        items,
        total=total,
        desc=label,
        file=sys.stderr,
        # A log file wants a line now and then, a person at a terminal a moving bar.
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
        leave=False,
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json PATH`; `-` is stdout. The value lands in `arguments.json` (str or None)."""
    parser.add_argument("--json", metavar="PATH", help="write the report as JSON; - is stdout")


def check_targets(*targets: str | Path | None) -> None:
    """See that files which are written at the end can be, before long work begins.

    Args:
        targets: as of --json and the like: a path, "-" or None; the latter two need nothing.

    Raises:
        InputError: one is a folder, or in none.
    """
    for target in targets:
        if target is not None and target != "-":
            check_target(Path(target))


def text_stream(json_target: str | None) -> TextIO:
    """Where a verb's table goes: stdout, or stderr when the JSON takes stdout."""
    return sys.stderr if json_target == "-" else sys.stdout


def emit_json(target: str | None, report: dict[str, Any]) -> None:
    """Write a report to a path (atomically), to stdout for "-", nowhere for None."""
    if target is None:
        return
    text = json_text(report)
    if target == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_atomic(Path(target), text.encode())


def json_text(report: Any) -> str:
    """Indented JSON with a final newline; NumPy values and paths become plain ones.

    Numbers that are not finite become null: JSON has no word for them.
    """
    return json.dumps(plain(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """The same value out of dicts, lists, str, int, float, bool and None only."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def counted(number: int, word: str) -> str:
    """ "1 layer", "2 layers"."""
    return f"{number} {word}{'s' * (number != 1)}"


def table(rows: Iterable[Iterable[object]]) -> str:
    """Rows of cells as aligned columns: the first left, the others right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first = row[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)
