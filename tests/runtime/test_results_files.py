"""The files of a run: lines that are whole, pictures in their place, percentiles from bins."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge.errors import InputError
from ndp_edge.runtime.linelog import LineLog, read_lines
from ndp_edge.runtime.outfolder import clear_out
from ndp_edge.runtime.sinks import stems
from ndp_edge.runtime.summary import Histogram


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_how_often_lines_are_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    with LineLog(tmp_path / "log", seconds) as log:
        for number in range(5):
            log.append({"frame": number})
        log.sync()
        assert len(flushed) == (5 if seconds == 0 else 0)
    assert len(flushed) == (6 if seconds == 0 else 1)


@given(tail=st.binary(max_size=90).filter(lambda data: b"\n" not in data), lines=st.integers(0, 3))
def test_a_torn_tail_is_cut_off_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, lines: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    whole = b"".join(b'{"frame": "%d"}\n' % n for n in range(lines))
    path.write_bytes(whole + tail)
    assert [line["frame"] for line in read_lines(path, ("frame",))] == [
        str(n) for n in range(lines)
    ]
    assert path.read_bytes() == whole


@given(
    st.lists(st.text(st.sampled_from("ab./~2\0"), min_size=1, max_size=6), unique=True, max_size=8)
)
def test_files_of_frames_stay_inside_their_folder_and_apart(names: list[str]) -> None:
    chosen = stems(names)
    assert list(chosen) == names
    assert len(set(chosen.values())) == len(names)
    for stem in chosen.values():
        assert stem and not stem.startswith("/") and "\0" not in stem
        assert ".." not in stem.split("/")


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=60))
def test_percentiles_from_bins_are_right_to_a_percent(times: list[float]) -> None:
    histogram = Histogram()
    for ms in times:
        histogram.add(ms)
    found = histogram.to_dict()
    assert found["n"] == len(times)
    assert found["mean"] == pytest.approx(np.mean(times))
    for percent in (50, 95, 99):
        exact = np.percentile(times, percent, method="inverted_cdf")
        assert found[f"p{percent}"] == pytest.approx(exact, rel=0.011)


def test_a_line_that_cannot_be_flushed_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota or a network disk may say only then that it is full."""
    with LineLog(tmp_path / "r.jsonl", sync_seconds=0) as log:
        log.append({"frame": "a"})
        with monkeypatch.context() as patched:

            def full(_descriptor: int) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patched.setattr("os.fsync", full)
            with pytest.raises(OSError, match="No space"):
                log.append({"frame": "b"})
        assert (tmp_path / "r.jsonl").read_text() == '{"frame": "a"}\n'
        log.append({"frame": "c"})
    assert (tmp_path / "r.jsonl").read_text() == '{"frame": "a"}\n{"frame": "c"}\n'


def test_results_that_another_run_has_begun_to_write_are_not_cleared(tmp_path: Path) -> None:
    with LineLog(tmp_path / "results.jsonl") as log:
        log.append({"frame": "a"})
        with pytest.raises(InputError, match="another run"):
            clear_out(tmp_path)
    clear_out(tmp_path)
    assert list(tmp_path.iterdir()) == []
