"""How much memory a process holds."""

from __future__ import annotations

import os
from pathlib import Path


def resident_bytes(process: int | None = None) -> int:
    """Resident memory now, of this process or another; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{process or 'self'}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
