"""One line of what `doctor` finds, and the ways it asks a machine without falling ill itself."""

from __future__ import annotations

import importlib.metadata
import subprocess
from dataclasses import dataclass
from pathlib import Path

QUICK = 10
"""Seconds after which a tool that does not answer counts as broken."""


@dataclass(frozen=True)
class Finding:
    """One line: what, whether it is there, and its version or how to get it."""

    name: str
    found: bool
    detail: str


def lines(path: str) -> list[str]:
    """A file's lines; none where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def ask(command: list[str], seconds: int = QUICK) -> str:
    """The first words of a command's output; empty when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip()


def version(distribution: str) -> str | None:
    """A distribution's version by its metadata; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def first_version(distributions: str) -> str | None:
    """That of the first of several distributions (joined by spaces) that is installed."""
    return next(filter(None, map(version, distributions.split())), None)
