"""A signal after two engines were closed in the order of their opening: OpenVINO alone dies."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, os, signal
from pathlib import Path
import ndp_edge
from ndp_edge.engines import open_engine
from ndp_edge.ov_core import shared_core

model = Path(ndp_edge.__file__).parent / "data" / "nano_woven.onnx"
engines = [open_engine("openvino", model, precision="fp32") for _ in range(2)]
while engines:
    engines.pop(0).close()
gc.collect()
assert shared_core() is shared_core()
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(True))
os.kill(os.getpid(), signal.SIGINT)
assert heard
print("alive")
"""


def test_a_signal_finds_its_stack_whatever_was_closed_first() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
