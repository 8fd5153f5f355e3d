"""A signal after two engines were closed in the order of their opening: OpenVINO alone dies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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


QUIET = """
import sys, threading
import ndp_edge
from pathlib import Path
from ndp_edge.engines import open_engine

model = Path(ndp_edge.__file__).parent / "data" / "nano_woven.onnx"
open_engine("openvino", model, precision="fp32").close()
print([t.name for t in threading.enumerate()])
print("openvino_telemetry" in sys.modules, list(Path.home().iterdir()))
"""


def test_nothing_is_reported_to_anyone(tmp_path: Path) -> None:
    """OpenVINO left to itself starts a thread, which forks, and writes into the home folder."""
    env = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", QUIET], capture_output=True, text=True, check=False, timeout=120,
        env=env | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "['MainThread']\nFalse []\n"), done.stderr


def test_openvino_is_imported_in_one_place() -> None:
    """Any other import of it would bring its telemetry along."""
    root = Path(__file__).resolve().parent.parent
    found = [
        str(path.relative_to(root))
        for room in ("ndp_edge", "bench", "calib", "export")
        for path in (root / room).rglob("*.py")
        if re.search(r"^\s*(import|from) openvino\b", path.read_text(), re.MULTILINE)
    ]
    assert found == ["ndp_edge/ov_core.py"]
