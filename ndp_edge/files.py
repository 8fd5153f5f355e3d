"""Whole files or none: a killed process never leaves half of one. And what a file holds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from ndp_edge.errors import InputError


def write_atomic(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write through a temporary sibling and a rename.

    Args:
        path: the file; its folder must exist. An existing file is replaced.
        data: its whole content.
        sync: flush it to the disk first. Off is for files that a rerun makes again anyway:
            a killed process still leaves whole files, a power cut may not.

    Raises:
        InputError: the folder does not exist, or the path is a folder.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    check_target(path)
    # The process and thread in the name: two writers of one file never share a temporary.
    tag = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name[:80]}.{tag}.tmp")
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            if sync:
                os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def check_target(path: Path) -> None:
    """What `write_atomic` asks of a path; raises its InputError. Asked before long work begins,
    a wrong path costs nothing."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}; make it first")


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hex. Raises InputError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()
