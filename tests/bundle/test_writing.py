"""Writing a bundle leaves all or nothing, also when the disk is full or the writer is killed."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ndp_edge import atomic
from ndp_edge.bundle import Bundle, BundleWriter
from ndp_edge.errors import InputError


def test_an_existing_bundle_is_kept_unless_forced(kit: SimpleNamespace, root: Path) -> None:
    before = Bundle.open(root).hash
    with pytest.raises(InputError, match="--force"):
        kit.write(root, threshold={"value": 0.5})
    assert Bundle.open(root).hash == before
    assert kit.leftovers(root) == []
    kit.write(root, force=True, threshold={"value": 0.5})
    assert Bundle.open(root).threshold == 0.5
    assert kit.leftovers(root) == []


def test_what_is_no_bundle_is_never_replaced(kit: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "precious.png").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"x")
    for name in ("photographs", "file"):
        with pytest.raises(InputError, match="not a bundle"):
            kit.write(tmp_path / name, force=True)
    assert (tmp_path / "photographs" / "precious.png").read_bytes() == b"x"


def test_an_empty_directory_is_filled(kit: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    root = kit.write(tmp_path / "bundle")
    assert Bundle.open(root).root == root.resolve()


def test_two_renames_do_where_the_kernel_cannot_exchange(
    kit: SimpleNamespace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    kit.write(root, force=True, threshold={"value": 0.5})
    assert Bundle.open(root).threshold == 0.5
    assert kit.leftovers(root) == []


def test_an_old_bundle_set_aside_by_a_killed_build_comes_back(
    kit: SimpleNamespace, root: Path
) -> None:
    root.rename(root.with_name(".bundle.1-00.ndp-old"))
    with BundleWriter(root):
        pass
    Bundle.open(root)
    assert kit.leftovers(root) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_leaves_nothing(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(code)):
        kit.write(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), BundleWriter(tmp_path / "bundle") as writer:
        writer.path("model.onnx").write_bytes(b"x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def _die_within_a_build(out: Path) -> None:
    with BundleWriter(out) as writer:
        writer.path("model.onnx").write_bytes(b"x")
        os._exit(9)  # as SIGKILL: no cleanup runs


def test_the_next_build_cleans_up_after_a_dead_one_but_not_a_living_one(
    kit: SimpleNamespace, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    process = multiprocessing.get_context("spawn").Process(target=_die_within_a_build, args=(out,))
    process.start()
    process.join(60)
    assert not out.exists()
    dead = kit.leftovers(out)
    assert len(dead) == 1
    with BundleWriter(out) as first:
        assert dead[0] not in kit.leftovers(out)
        with BundleWriter(out) as second:
            first.path("x").write_bytes(b"1")
            second.path("x").write_bytes(b"2")
        assert first.path("x").read_bytes() == b"1"
    assert list(tmp_path.iterdir()) == []


STEPS = ("bundle.seal", "bundle.put_in_place", "atomic.sync_tree", "atomic._exchange")
WORKER = """
import json, os, sys
from pathlib import Path
from ndp_edge import atomic, bundle
module, name = sys.argv[2].split(".")
module = {"bundle": bundle, "atomic": atomic}[module]
real = getattr(module, name)
def die(*a):
    if sys.argv[3] == "after":
        real(*a)
    os.kill(os.getpid(), 9)
setattr(module, name, die)
with bundle.BundleWriter(Path(sys.argv[1])) as writer:
    for name in ("model.onnx", "engines/openvino-int8.onnx", "golden.npz"):
        writer.path(name).write_bytes(b"new")
    writer.commit(json.loads(sys.argv[4]), force=True)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("existing", [False, True])
def test_a_kill_around_each_step_of_a_commit_leaves_old_or_new(
    kit: SimpleNamespace, tmp_path: Path, step: str, moment: str, existing: bool
) -> None:
    out = tmp_path / "bundle"
    if existing:
        kit.write(out)
    new = json.dumps(kit.content(threshold={"value": 0.5}))
    done = subprocess.run([sys.executable, "-c", WORKER, out, step, moment, new], check=False)
    if step == "atomic._exchange" and not existing:
        assert done.returncode == 0  # nothing to exchange: the step is never reached
    else:
        assert done.returncode == -signal.SIGKILL
    renamed = moment == "after" and step in ("bundle.put_in_place", "atomic._exchange")
    if renamed or done.returncode == 0:
        assert Bundle.open(out).threshold == 0.5
    elif existing:
        assert Bundle.open(out).threshold == 0.25
    else:
        assert not out.exists()
    Bundle.open(kit.write(out, force=True))
    assert kit.leftovers(out) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(InputError, match="cannot write"),
        BundleWriter(tmp_path / "file" / "bundle"),
    ):
        pass


def test_a_report_replaces_only_a_report(kit: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "bundle.failed"
    for text in ("1", "2"):
        with BundleWriter(out) as writer:
            writer.path("report.json").write_text(text)
            writer.commit_plain()
    assert (out / "report.json").read_text() == "2"
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not a report"), BundleWriter(out) as writer:
        writer.commit_plain()
    assert kit.leftovers(out) == []
