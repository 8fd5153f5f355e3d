"""Opening CUDA where it is missing: one line each, with what mends it."""

from __future__ import annotations

import importlib.machinery
import sys
import types

import pytest

from ndp_edge.cuda import open_cuda
from ndp_edge.errors import InputError, MachineError


def _only(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Make find_spec see no module but these."""
    real = importlib.machinery.ModuleSpec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: real(name, None) if name in modules else None
    )


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="no CUDA package 'opencl'; there are auto, cuda-python"):
        open_cuda("opencl")


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("pycuda", r"pycuda is not installed here; .*pip install 'ndp-edge\[pycuda\]'"),
        ("cuda-python", r"cuda-python is not installed here; .*pip install 'ndp-edge\[cuda\]'"),
        ("auto", r"neither cuda-python nor pycuda .*pip install 'ndp-edge\[cuda\]'"),
    ],
)
def test_a_missing_package_names_the_command(
    monkeypatch: pytest.MonkeyPatch, backend: str, words: str
) -> None:
    _only(monkeypatch)
    with pytest.raises(MachineError, match=words) as caught:
        open_cuda(backend)
    assert "\n" not in str(caught.value)


def test_auto_prefers_the_one_with_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Opened:
        def __init__(self, name: str) -> None:
            self.name = name

    for module, name in (("cuda_python", "CudaPython"), ("pycuda", "PyCuda")):
        fake = types.ModuleType(f"ndp_edge.cuda.{module}")
        setattr(fake, name, lambda device, module=module: Opened(module))
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
    _only(monkeypatch, "cuda.bindings.driver", "pycuda")
    assert open_cuda().name == "cuda_python"
    _only(monkeypatch, "cuda.cuda", "pycuda")  # an old cuda-python
    assert open_cuda().name == "cuda_python"
    _only(monkeypatch, "pycuda")
    assert open_cuda().name == "pycuda"


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (ImportError("libcuda.so.1: cannot open shared object file"), "no NVIDIA driver answers"),
        (ImportError("undefined symbol: cuCtxCreate_v9"), "does not load here.*docs/pycuda.md"),
        (ModuleNotFoundError("No module named 'pytools'"), "pip install"),
    ],
)
def test_a_pycuda_that_does_not_load_says_why(
    monkeypatch: pytest.MonkeyPatch, raised: ImportError, words: str
) -> None:
    def refuse(name: str) -> types.ModuleType:
        raise raised

    _only(monkeypatch, "pycuda")
    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(MachineError, match=words):
        open_cuda("pycuda")


def test_importing_the_room_loads_no_package() -> None:
    import ndp_edge.cuda.cuda_python
    import ndp_edge.cuda.pycuda

    assert ndp_edge.cuda.pycuda.PyCuda.no_graphs
    assert ndp_edge.cuda.cuda_python.CudaPython.no_graphs is None
    assert "pycuda.driver" not in sys.modules
    assert "pycuda.autoinit" not in sys.modules
