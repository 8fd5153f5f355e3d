"""Every argument that is wrong is refused by its name, before anything is written."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge.errors import InputError
from ndp_edge.model.prepared import prepare_reference
from ndp_edge.native.compile import build_host
from ndp_edge.native.host import HostKernels, aligned
from ndp_edge.native.library import Library, MapShape

Array = NDArray[Any]

SHAPE = MapShape(half=False, nhwc=True, images=2, channels=8, height=8, width=4)
REFERENCE = (4, 8)

NUMBERS: dict[str, list[Any]] = {
    "half": [2, -1],
    "nhwc": [2, -1],
    "images": [0, -1, 65],
    "channels": [0, -8, 12, 2**30],
    "height": [0, -4, 6, 2, 2**30],
    "width": [0, -4, 6, 2, 2**30],
}
"""Of a map's shape, under the names of MapShape."""

WORDS = {"half": "dtype", "nhwc": "layout"}
"""Where the C interface has another name."""


class Call:
    """Good arguments of one launcher, and what its outputs hold: 0xFF bytes until it runs."""

    def __init__(self, library: Library, kernel: str) -> None:
        self.kernel, self.library = kernel, library
        self.arrays: dict[str, Array] = {}
        self.outputs: list[str] = []
        self.numbers: dict[str, Any] = {}
        self.positional: list[Any] = []
        getattr(self, f"_{kernel}")()

    def _take(self, outputs: str, **arrays: Array) -> None:
        self.outputs = outputs.split()
        for name, array in arrays.items():
            self.arrays[name] = aligned(array.shape, array.dtype)
            if name not in self.outputs:
                self.arrays[name][...] = array

    def _rbfrm(self) -> None:
        maps = np.ones((2, 8, 4, 8), np.float32)
        prepared = prepare_reference(np.ones((8, *REFERENCE), np.float32))
        size = self.library.rbfrm_workspace_bytes(SHAPE, REFERENCE)
        assert size > 0
        self.positional = [SHAPE, REFERENCE, 1.0]
        self._take(
            "rep2 rep4 fused workspace",
            features=maps, reference=maps[0], prepared=prepared, rep2=maps, rep4=maps,
            fused=maps, workspace=np.empty(size, np.uint8),
        )  # fmt: skip
        self.numbers = {"workspace_bytes": size}

    def _ffm_select(self) -> None:
        maps = np.ones((2, 8, 4, 8), np.float32)
        self.positional = [SHAPE]
        logits = np.ones((2, 8, 4, 24), np.float32)
        self._take("selected", logits=logits, rep4=maps, rep2=maps, features=maps, selected=maps)

    def _smooth_max(self) -> None:
        maps = np.ones((2, 9, 33), np.float32)
        size = self.library.smooth_max_workspace_bytes(*maps.shape)
        assert size > 0
        self.positional = list(maps.shape)
        self._take(
            "smoothed peaks workspace",
            maps=maps, smoothed=maps, peaks=np.ones(2, np.float32),
            workspace=np.empty(size, np.uint8),
        )  # fmt: skip
        self.numbers = {"workspace_bytes": size}

    def run(self, **changed: int) -> None:
        """The launcher, with other addresses or numbers in the place of the good ones."""
        addresses = {name: array.ctypes.data for name, array in self.arrays.items()}
        named = {**addresses, **self.numbers, **changed}
        getattr(self.library, self.kernel)(*self.positional, **named)

    def refused(self, argument: str, **changed: int) -> None:
        """The error begins with the kernel, names the argument, and came before any writing."""
        with pytest.raises(InputError, match=rf"^{self.kernel}: .*\b{argument}\b") as error:
            self.run(**changed)
        assert "\n" not in str(error.value)
        for name in self.outputs:
            assert (self.arrays[name].view(np.uint8) == 0xFF).all(), f"wrote to {name}"


@pytest.fixture(params=["rbfrm", "ffm_select", "smooth_max"])
def call(request: pytest.FixtureRequest, host: HostKernels) -> Call:
    """Each launcher with good arguments."""
    return Call(host.library, request.param)


@pytest.fixture(params=["rbfrm", "ffm_select"])
def map_call(request: pytest.FixtureRequest, host: HostKernels) -> Call:
    """The launchers that take a batch of feature maps."""
    return Call(host.library, request.param)


@pytest.fixture
def rbfrm(host: HostKernels) -> Call:
    return Call(host.library, "rbfrm")


@pytest.fixture
def smooth_max(host: HostKernels) -> Call:
    return Call(host.library, "smooth_max")


def test_the_good_arguments_are_good(call: Call) -> None:
    """Else every refusal below could be of something else."""
    call.run()
    for name in call.outputs:
        if name != "workspace":
            assert np.isfinite(call.arrays[name]).all()


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in NUMBERS.items() for v in vs])
def test_numbers_of_a_map(map_call: Call, name: str, value: int) -> None:
    map_call.positional[0] = replace(SHAPE, **{name: value})
    map_call.refused(WORDS.get(name, name))


def test_maps_too_large_for_an_index(map_call: Call) -> None:
    """Each number by itself is allowed; 64 bits are needed to see that the product is not."""
    map_call.positional[0] = replace(SHAPE, images=64, channels=2**14, height=4096, width=4096)
    for argument in ("channels", "height", "width", "images"):
        map_call.refused(argument)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("value", [0, -4, 6, 2, 2**30])
def test_the_references_sides(rbfrm: Call, axis: int, value: int) -> None:
    sides = list(REFERENCE)
    sides[axis] = value
    rbfrm.positional[1] = tuple(sides)
    rbfrm.refused(("ref_height", "ref_width")[axis])
    assert rbfrm.library.rbfrm_workspace_bytes(SHAPE, rbfrm.positional[1]) == 0


def test_a_reference_too_large_for_an_index(rbfrm: Call) -> None:
    rbfrm.positional[1] = (2**15, 2**15)
    rbfrm.refused("ref_height")
    rbfrm.refused("ref_width")


@pytest.mark.parametrize("scale", [0.0, -1.0, 64.5, np.inf, -np.inf, np.nan])
def test_the_softmax_scale(rbfrm: Call, scale: float) -> None:
    rbfrm.positional[2] = scale
    rbfrm.refused("softmax_scale")


def test_multiprocessors(rbfrm: Call) -> None:
    rbfrm.library = Library(build_host(), multiprocessors=-1)
    rbfrm.refused("multiprocessors")


@pytest.mark.parametrize(("axis", "name"), [(0, "images"), (1, "height"), (2, "width")])
@pytest.mark.parametrize("value", [0, -1, 2**15 + 1, 2**31 - 1])
def test_numbers_of_the_maps_to_smooth(smooth_max: Call, axis: int, name: str, value: int) -> None:
    smooth_max.positional[axis] = value
    smooth_max.refused(name)
    assert smooth_max.library.smooth_max_workspace_bytes(*smooth_max.positional) == 0


def test_every_pointer(call: Call) -> None:
    """Null, off by an element, and a workspace that is aligned only as the maps are."""
    for name, array in call.arrays.items():
        call.refused(name, **{name: 0})
        call.refused(name, **{name: array.ctypes.data + 4})
        call.refused(name, **{name: array.ctypes.data + 8})
        if name == "workspace":
            call.refused(name, **{name: array.ctypes.data + 16})


@pytest.mark.parametrize("kernel", ["rbfrm", "smooth_max"])
def test_the_workspaces_size(host: HostKernels, kernel: str) -> None:
    call = Call(host.library, kernel)
    call.refused("workspace_bytes", workspace_bytes=call.numbers["workspace_bytes"] - 1)
    call.refused("workspace_bytes", workspace_bytes=0)


def test_outputs_that_lie_on_something_else(call: Call) -> None:
    """On an input, on another output, or beginning inside one."""
    for output in call.outputs:
        for other, array in call.arrays.items():
            if other == output:
                continue
            for offset in (0, 256):
                if offset < array.nbytes:
                    call.refused(output, **{output: array.ctypes.data + offset})


@pytest.mark.parametrize("kernel", ["rbfrm", "ffm_select", "smooth_max"])
def test_no_structure_at_all(host: HostKernels, kernel: str) -> None:
    launch = getattr(ctypes.CDLL(str(build_host())), f"ndp_{kernel}")
    launch.argtypes, launch.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_char_p
    assert re.match(rf"{kernel}: .*\bargs\b", launch(None, None).decode())


@pytest.mark.parametrize("kernel", ["rbfrm", "smooth_max"])
def test_no_structure_needs_no_workspace(host: HostKernels, kernel: str) -> None:
    size = getattr(ctypes.CDLL(str(build_host())), f"ndp_{kernel}_workspace_bytes")
    size.argtypes, size.restype = [ctypes.c_void_p], ctypes.c_uint64
    assert size(None) == 0


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in NUMBERS.items() for v in vs])
def test_a_refused_shape_has_no_workspace(
    host: HostKernels, half: bool, name: str, value: int
) -> None:
    shape = replace(SHAPE, **{"half": half, name: value})
    assert host.library.rbfrm_workspace_bytes(shape, REFERENCE) == 0


def test_what_is_prepared_is_as_long_as_the_header_says(host: HostKernels) -> None:
    for channels, height, width in ((8, 4, 4), (40, 4, 36), (24, 68, 8)):
        reference = np.ones((channels, height, width), np.float32)
        expected = prepare_reference(reference).size
        assert host.library.rbfrm_prepared_floats(channels, height, width) == expected
