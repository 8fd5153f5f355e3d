"""A bundle's engine, tuned for how it will be fed, and warm."""

from __future__ import annotations

import numpy as np

from ndp_edge import engines
from ndp_edge.bundle import Bundle
from ndp_edge.engines.base import Engine


def open_engine(bundle: Bundle, in_flight: int | None) -> Engine:
    """The bundle's default engine: for throughput, or for latency where `in_flight` is 1.

    Raises:
        InputError, MachineError: as `engines.open_engine`.
    """
    backend, precision = bundle.default
    model = bundle.engine_path(backend, precision, engines.card_sm())
    return engines.open_engine(backend, model, precision=precision, latency=in_flight == 1)


def requests(engine: Engine, in_flight: int | None) -> int:
    """How many requests are given to an engine at once; None takes what keeps it busy."""
    return in_flight or engine.lanes + 1


def warm_up(engine: Engine, in_flight: int) -> None:
    """Let every lane allocate what it needs before the first frame comes."""
    blank = np.zeros((engine.batch, *engine.size, 3), np.uint8)
    for ticket in [engine.submit(blank) for _ in range(in_flight)]:
        engine.collect(ticket)
