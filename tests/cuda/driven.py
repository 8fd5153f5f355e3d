"""Run by test_packages.py in its own process, with the fake driver in front: one package's day.

Prints what it saw as one JSON object. argv: the package, then what to do.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
from typing import Any

import numpy as np

from ndp_edge.cuda import open_cuda
from ndp_edge.cuda.base import CannotCaptureError, Cuda, CudaError
from ndp_edge.errors import NdpError


def copies(cuda: Cuda) -> dict[str, Any]:
    """There and back through the device, in part; times; a graph where there are graphs."""
    a, b = cuda.pinned(100), cuda.pinned(100)
    device, stream, began, ended = cuda.device(100), cuda.stream(), cuda.event(), cuda.event()
    a.array[:] = np.arange(100)
    began.record(stream)
    cuda.copy_in(device, a, 100, stream)
    cuda.copy_out(b, device, 50, stream)
    ended.record(stream)
    cuda.wait(stream, began)
    ended.synchronize()
    stream.synchronize()
    seen = {"half": b.array[48:52].tolist(), "ms": began.elapsed_ms(ended)}
    seen["numbers"] = [type(stream.handle).__name__, type(device.address).__name__]

    def work() -> None:
        cuda.copy_in(device, a, 100, stream)
        cuda.copy_out(b, device, 100, stream)

    try:
        graph = cuda.capture(stream, work)
    except CannotCaptureError as error:
        seen["no_graph"] = str(error)
    else:
        seen["before"] = int(b.array[99])
        a.array[99] = 7
        graph.launch(stream)
        stream.synchronize()
        seen["after"] = int(b.array[99])
        graph.free()
    return seen


def broken_capture(cuda: Cuda) -> dict[str, Any]:
    """What cannot be captured says so, what raises is passed on, and the stream still works."""
    stream, device, pinned = cuda.stream(), cuda.device(8), cuda.pinned(8)
    seen = {}

    def bug() -> None:
        raise KeyError("bug")

    for name, work in (("sync", stream.synchronize), ("bug", bug)):
        try:
            cuda.capture(stream, work)
        except (CannotCaptureError, KeyError) as error:
            seen[name] = type(error).__name__
    cuda.copy_in(device, pinned, 8, stream)
    stream.synchronize()
    return seen


def threads(cuda: Cuda) -> dict[str, Any]:
    """Without a push nothing works; with one, on another thread too, freeing included."""
    seen: dict[str, Any] = {}
    device = cuda.device(8)

    def other() -> None:
        try:
            cuda.device(8)
        except CudaError as error:
            seen["alone"] = [error.call, error.code]
        with cuda.current(), cuda.current():
            device.free()
            cuda.device(8)
        seen["depth"] = driver.fake_depth()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    return seen


def misuse(cuda: Cuda) -> dict[str, Any]:
    """A copy too long, a buffer after its end, a buffer freed twice."""
    seen = {}
    device, pinned, stream = cuda.device(8), cuda.pinned(8), cuda.stream()
    try:
        cuda.copy_in(device, pinned, 9, stream)
    except ValueError:
        seen["long"] = "refused"
    pinned.free()
    pinned.free()
    try:
        seen["freed"] = pinned.array.tolist()
    except ValueError:
        seen["freed"] = "refused"
    return seen


DAYS = {f.__name__: f for f in (copies, broken_capture, threads, misuse)}
driver = ctypes.CDLL("libcuda.so.1")


def main() -> None:
    """Open, do, close; or say what was raised."""
    seen: dict[str, Any] = {}
    cuda = None
    try:
        cuda = open_cuda(sys.argv[1])
        with cuda.current():
            seen = {**cuda.describe(), **DAYS[sys.argv[2]](cuda)}
    except NdpError as error:
        seen = {"raised": type(error).__name__, "said": str(error)}
        seen |= {"call": getattr(error, "call", None), "code": getattr(error, "code", None)}
    seen["alive"] = driver.fake_alive()
    if cuda is not None:
        cuda.close()
        cuda.close()
    left = [driver.fake_alive(), driver.fake_retained(), driver.fake_depth()]
    print(json.dumps({**seen, "left": left}))


if __name__ == "__main__":
    main()
