"""One OpenVINO Core for the whole process.

Each Core's CPU plugin gives its thread a signal stack of its own and puts the one before back
when it goes. Of two Cores that go in another order than the reverse of their making, the second
puts back a stack that is freed already (2026.4), and the next signal, a Ctrl-C or SIGTERM, kills
the process by SIGSEGV. One Core that never goes has no such order.
"""

from __future__ import annotations

import threading
from typing import Any

from ndp_edge.errors import MachineError

_LOCK = threading.Lock()
_made: list[Any] = []


def shared_core() -> Any:
    """The process's openvino.Core; may be called from any thread.

    Raises:
        MachineError: OpenVINO is missing.
    """
    try:
        import openvino  # type: ignore[import-untyped]
    except ImportError as error:
        raise MachineError(
            "openvino is not installed here; install it with: pip install openvino"
        ) from error
    with _LOCK:
        if not _made:
            _made.append(openvino.Core())
        return _made[0]
