"""A build cut short, by a full disk or by SIGKILL, leaves a whole bundle or none."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ndp_edge.bundle import Bundle


def test_a_full_disk_is_one_line_and_leaves_nothing(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert kit.run(net, data, tmp_path / "bundle", "--fp32") == 2
    kit.refused_with("disk is full", capsys, tmp_path / "bundle")
    monkeypatch.undo()
    monkeypatch.setattr("ndp_edge.build.write_golden", full)
    assert kit.run(net, data, tmp_path / "bundle", "--fp32") == 2
    kit.refused_with("disk is full", capsys, tmp_path / "bundle")


def start(
    quiet: list[str], net: Path, data: Path, out: Path, *options: str
) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "ndp_edge.build",
        "--checkpoint",
        str(net),
        "--data",
        str(data),
    ]
    return subprocess.Popen(
        [*command, "--out", str(out), *quiet, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_build_killed_at_any_moment_leaves_a_whole_bundle_or_none(
    kit: SimpleNamespace, net: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    began = time.monotonic()
    assert start(kit.QUIET, net, data, out, "--int8").wait(120) == 0
    whole = time.monotonic() - began
    old = Bundle.open(out).hash
    moments = random.Random(0)
    for _ in range(2):
        process = start(kit.QUIET, net, data, out, "--int8", "--force")
        time.sleep(moments.uniform(0.4, 1.0) * whole)
        process.kill()
        assert process.wait(30) in (-signal.SIGKILL, 0)
        Bundle.open(out)  # the old one or the new one, whole
    shutil.rmtree(out)
    for _ in range(2):
        process = start(kit.QUIET, net, data, out, "--int8")
        time.sleep(moments.uniform(0.4, 0.9) * whole)
        process.kill()
        process.wait(30)
        if out.exists():
            assert Bundle.open(out).hash != old
            shutil.rmtree(out)
    assert start(kit.QUIET, net, data, out, "--fp32").wait(120) == 0
    Bundle.open(out)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
