"""One seed, one file: calibration gives the same bytes in any process, whatever it hashes by."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ndp_edge.calib.calibrate import calibrate
from ndp_edge.calib.ranges import METHODS

SCRIPT = """
import hashlib, sys
from pathlib import Path
import numpy as np
from ndp_edge.calib.artificial import make_tune_set
from ndp_edge.calib.calibrate import calibrate
from ndp_edge.calib.ranges import METHODS
from ndp_edge.calib.sample import farthest_points, statistics
net, images, out = Path(sys.argv[1]), np.load(sys.argv[2]), Path(sys.argv[3])
print(farthest_points(statistics(images), 4, 5))
print(hashlib.sha256(make_tune_set(images[:4], 5).images.tobytes()).hexdigest())
for method in METHODS:
    calibrate(net, images, out, method=method, seed=5)
    print(method, hashlib.sha256(out.read_bytes()).hexdigest())
"""


def told(hash_seed: str, exported: Path, images: Path, out: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(exported), str(images), str(out)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_two_processes_write_the_same_models(
    kit: SimpleNamespace, exported: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", kit.pictures(6))
    first = told("1", exported, tmp_path / "images.npy", tmp_path / "a.onnx")
    again = told("4242", exported, tmp_path / "images.npy", tmp_path / "b.onnx")
    assert first == again
    digests = [line.split()[1] for line in first.splitlines()[2:]]
    assert len(digests) == len(METHODS)
    assert len(set(digests)) > 1  # methods that all gave one file would prove nothing


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_images_does_not_matter(
    kit: SimpleNamespace, exported: Path, tmp_path: Path, method: str
) -> None:
    images = kit.pictures(4)
    calibrate(exported, images, tmp_path / "a.onnx", method=method)
    calibrate(exported, images[::-1].copy(), tmp_path / "b.onnx", method=method)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    calibrate(exported, images[:1], tmp_path / "c.onnx", method=method)
    assert (tmp_path / "a.onnx").read_bytes() != (tmp_path / "c.onnx").read_bytes()
