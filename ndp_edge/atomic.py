"""Directories that appear whole or not at all, whatever kills the process. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from pathlib import Path

_SUFFIX = ".ndp-tmp"
_OLD = ".ndp-old"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def sync(path: Path) -> None:
    """Flush one file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(root: Path) -> None:
    """Flush every file and directory under root, root last."""
    for path in sorted(root.rglob("*"), reverse=True):
        sync(path)
    sync(root)


def locked_sibling(out: Path) -> tuple[Path, int]:
    """A fresh hidden directory beside `out`, and the descriptor that holds its lock.

    The kernel drops the lock when the process dies, however it dies: that is how
    `clean_stale` tells a dead build's leavings from a living build's work.
    """
    while True:
        path = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}")
        path.mkdir()
        handle = os.open(path, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():  # else a cleaner came between mkdir and flock
            return path, handle
        os.close(handle)


def clean_stale(out: Path) -> None:
    """Remove what killed builds left beside `out`; put back an old bundle set aside."""
    if not out.parent.is_dir():
        return
    for path in list(out.parent.iterdir()):
        if not path.name.startswith(f".{out.name}."):
            continue
        if path.name.endswith(_OLD) and not out.exists():
            path.rename(out)
        elif path.name.endswith((_SUFFIX, _OLD)) and not _is_locked(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_locked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return True  # gone or not ours to judge
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def put_in_place(temporary: Path, out: Path) -> None:
    """Move the finished directory `temporary` to `out`, replacing what stands there.

    A new `out` appears by one rename. An existing one is exchanged by one system call
    (renameat2, RENAME_EXCHANGE), so that at every moment `out` is the old or the new. A file
    system without that call gets two renames; a kill between them leaves the old directory
    hidden beside `out`, and the next `clean_stale` puts it back.
    """
    sync_tree(temporary)
    if not out.exists() or not any(out.iterdir()):
        temporary.rename(out)  # POSIX replaces an empty directory atomically
    elif _exchange(temporary, out):
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        old = temporary.with_suffix(_OLD)
        out.rename(old)
        temporary.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):  # some file systems cannot sync a directory
        sync(out.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two directories in one step; False where kernel or file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    paths = os.fsencode(first), os.fsencode(second)
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(second))
