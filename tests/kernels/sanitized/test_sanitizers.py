"""The kernels' own sources under AddressSanitizer, UBSan and ThreadSanitizer, driven from C++.

kernels/host/driver.cpp gives each launcher buffers of their exact size. Where a block's threads
are real threads, what a barrier forgets is a data race that the thread sanitizer reports.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[Any]


KERNELS = ["rbfrm", "ffm_select", "smooth_max"]


@pytest.fixture(scope="session")
def plain(workshop: Any, cases: Any) -> dict[Path, list[Array]]:
    """What the ordinary build answers to every case, between guard bands and twice the same."""
    every = [case for kernel in KERNELS for case in cases(kernel, "plain")]
    done = workshop.run("plain", every)
    assert done.returncode == 0, done.stderr
    return {case.path: case.answers() for case in every}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("flavour", ["address", "thread"])
def test_the_sanitizers_find_nothing(
    workshop: Any, cases: Any, plain: dict[Path, list[Array]], flavour: str, kernel: str
) -> None:
    """And every output is written, and is the ordinary build's."""
    some = cases(kernel, flavour)
    assert some
    done = workshop.run(flavour, some)
    assert done.returncode == 0, done.stderr
    for case in some:
        triples = zip(case.answers(), plain[case.path], case.outputs, strict=True)
        for ours, theirs, (_, dtype) in triples:
            assert np.isfinite(ours).all()
            step = 4 * np.finfo(dtype).eps
            np.testing.assert_allclose(ours, theirs, rtol=step, atol=step * np.abs(theirs).max())


def test_the_driver_says_what_is_wrong(workshop: Any, cases: Any, tmp_path: Path) -> None:
    """A driver that ended with 0 whatever happened would make every test above pass."""
    (case, *_) = cases("smooth_max", "plain")
    whole = case.path.read_bytes()
    for name, content, code, line in (
        ("short", whole[:-1], 2, "the case ends inside maps"),
        ("unknown", b"x" * 16 + whole[16:], 2, "no kernel x"),
        ("no images", whole[:24] + bytes(4) + whole[28:], 1, "smooth_max: images"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        done = workshop.run("plain", [replace(case, path=path)])
        assert done.returncode == code
        assert done.stderr.startswith(f"driver: {line}")
        assert not path.with_suffix(".out").exists()
