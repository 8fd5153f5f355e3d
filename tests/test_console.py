"""Errors become exit codes and one line; JSON is plain; files are whole."""

from __future__ import annotations

import argparse
import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge import console, files
from ndp_edge.errors import GateError, InputError, MachineError


def failing(error: BaseException) -> int:
    def body() -> int:
        raise error

    return console.run_verb(body)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (GateError("too slow"), 1, "too slow"),
        (InputError("no folder\nmake it"), 2, "no folder make it"),
        (MachineError("pip install openvino"), 3, "pip install"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 2, "disk is full (/data/x)"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2, "Permission denied"),
    ],
)
def test_errors_become_one_line_and_a_code(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


def test_no_return_value_is_success() -> None:
    assert console.run_verb(lambda: None) == 0
    assert console.run_verb(lambda: 7) == 7


def test_json_goes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    console.add_json_option(parser)
    report: dict[Any, Any] = {
        "a": np.float32(0.5),
        "b": np.arange(3),
        "c": Path("x"),
        4: [True, None],
    }
    wanted = {"a": 0.5, "b": [0, 1, 2], "c": "x", "4": [True, None]}
    for target in (str(tmp_path / "r.json"), "-", None):
        arguments = parser.parse_args(["--json", target] if target else [])
        console.emit_json(arguments.json, report)
    assert json.loads((tmp_path / "r.json").read_text()) == wanted
    assert json.loads(capsys.readouterr().out) == wanted


def test_numbers_that_are_not_finite_become_null() -> None:
    text = console.json_text({"x": [float("nan"), np.inf, 1.5], "y": np.array([np.nan])})
    assert json.loads(text) == {"x": [None, None, 1.5], "y": [None]}


@given(st.lists(st.lists(st.text(max_size=8), min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_table_keeps_every_cell(rows: list[list[str]]) -> None:
    text = console.table(rows)
    for row in rows:
        for cell in row:
            assert cell.strip() in text


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    files.write_atomic(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        console.emit_json(str(tmp_path / "none" / "r.json"), {})
    with pytest.raises(InputError, match="is a folder"):
        console.emit_json(str(tmp_path), {})
    with pytest.raises(InputError, match="no folder"):
        console.check_targets(None, "-", tmp_path / "r.json", str(tmp_path / "none" / "r.json"))
    console.check_targets(None, "-", tmp_path / "r.json")
