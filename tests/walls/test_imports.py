"""The walls between the rooms: who may import what, checked on the source and by importing.

Stages hand over files, never live objects; imports point one way (the design's section 2).
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

VERBS = ("train", "build", "evaluate", "verify", "run", "doctor")

# Import names of the default install; everything else is an extra and stays out of module level.
# google is google.protobuf, which is how onnx itself reads and writes.
DEFAULT = {"numpy", "onnx", "onnxruntime", "openvino", "cv2", "safetensors", "tqdm", "google"}
TORCH_ROOMS = (
    "ndp_edge.model", "ndp_edge.losses", "ndp_edge.train", "ndp_edge.training",
    *(f"ndp_edge.bench.gpu.{part}" for part in (
        "rig", "judge", "checks", "checks_cuda", "checks_refused", "run_checks",
        "timer", "work", "net", "run_timing",
    )),
    "ndp_edge.bench.ablated_maps", "ndp_edge.bench.ablated_net",
    *(f"ndp_edge.bench.peers.{part}" for part in (
        "opened", "draem", "draem_train", "stfpm", "efficientad", "patchcore", "resnet",
    )),
)  # fmt: skip
TORCH_INSIDE_FUNCTIONS = ("ndp_edge.export", "ndp_edge.bench", "ndp_edge.doctor")
TORCH_FREE_IN_MODEL = ("ndp_edge.model", "ndp_edge.model.config", "ndp_edge.model.prepared")


def test_there_are_modules_in_every_room(kit: SimpleNamespace) -> None:
    rooms = {"ndp_edge.model", "ndp_edge.data", "ndp_edge.engines", "ndp_edge.export"}
    assert rooms | {"ndp_edge.calib", "ndp_edge.bench", "ndp_edge.runtime"} <= kit.NAMES
    assert not any(name.startswith("ndp_edge.kernels") for name in kit.NAMES), (
        "kernels holds no Python"
    )


def test_third_party_imports_stay_in_the_default_install(kit: SimpleNamespace, module: Any) -> None:
    for found in module.imports:
        root = found.name.partition(".")[0]
        if root in sys.stdlib_module_names or root == "ndp_edge":
            continue
        where = f"{module.path}:{found.line} imports {found.name}"
        assert root not in kit.MAPPED, f"{where}: write ndp_edge.{root}"
        if root in {"torch", "tensorboard", "torchvision"}:
            free = module.name in TORCH_FREE_IN_MODEL
            room = kit.within(module.name, TORCH_ROOMS) and not free
            lazy = kit.within(module.name, TORCH_INSIDE_FUNCTIONS) and not found.top
            assert room or lazy, f"{where} outside torch's rooms"
        elif found.top:
            assert root in DEFAULT, f"{where}, which the default install does not have"


# For each room, the rooms of ours it may never reach, lazily or not.
VERB_MODULES = tuple(f"ndp_edge.{verb}" for verb in VERBS)
TRAINING = ("ndp_edge.train", "ndp_edge.training", "ndp_edge.losses")
NETS = tuple(
    f"ndp_edge.model.{part}"
    for part in ("network", "encoder", "rbam", "decoder", "msdsm", "launch", "operators", "fused")
)
NEVER: dict[str, tuple[str, ...]] = {
    "ndp_edge.model": (
        *VERB_MODULES, *TRAINING, "ndp_edge.engines", "ndp_edge.export", "ndp_edge.calib",
        "ndp_edge.runtime", "ndp_edge.bundle", "ndp_edge.data", "ndp_edge.cli",
    ),
    "ndp_edge.reference": (*VERB_MODULES, *NETS, "ndp_edge.engines", "ndp_edge.export"),
    "ndp_edge.metrics": (*VERB_MODULES, *TRAINING, *NETS, "ndp_edge.engines", "ndp_edge.export"),
    "ndp_edge.data": (
        *VERB_MODULES, *TRAINING, *NETS, "ndp_edge.engines", "ndp_edge.export", "ndp_edge.calib",
        "ndp_edge.runtime", "ndp_edge.bundle",
    ),
    "ndp_edge.losses": (*VERB_MODULES, "ndp_edge.engines", "ndp_edge.export", "ndp_edge.calib"),
    "ndp_edge.training": (
        "ndp_edge.build", "ndp_edge.engines", "ndp_edge.export", "ndp_edge.calib",
        "ndp_edge.runtime", "ndp_edge.bundle",
    ),
    "ndp_edge.engines": (
        *VERB_MODULES, *TRAINING, *NETS, "ndp_edge.calib", "ndp_edge.runtime", "ndp_edge.bundle",
        "ndp_edge.report", "ndp_edge.cli",
    ),
    "ndp_edge.export": (
        *VERB_MODULES, *TRAINING, "ndp_edge.calib", "ndp_edge.engines", "ndp_edge.runtime",
        "ndp_edge.bundle", "ndp_edge.report",
    ),
    "ndp_edge.calib": (
        *VERB_MODULES, *TRAINING, *NETS, "ndp_edge.runtime", "ndp_edge.report", "ndp_edge.cli",
    ),
    "ndp_edge.runtime": (
        "ndp_edge.build", "ndp_edge.train", *TRAINING, *NETS, "ndp_edge.export", "ndp_edge.calib",
    ),
    "ndp_edge.bundle": (*VERB_MODULES, *TRAINING, *NETS, "ndp_edge.calib", "ndp_edge.cli"),
}  # fmt: skip


def test_imports_point_one_way(kit: SimpleNamespace, module: Any) -> None:
    reached = {(name, found.line) for found in module.imports if (name := kit.ours(found))}
    if module.name == "ndp_edge.errors":
        assert not reached, "errors.py imports nothing of ours"
    if module.name == "ndp_edge.types":
        assert {name for name, _ in reached} <= {"ndp_edge.errors"}, "types.py: shapes only"
    for room, never in NEVER.items():
        if not kit.within(module.name, (room,)):
            continue
        for name, line in reached:
            assert not kit.within(name, never), f"{module.path}:{line}: {room} may not reach {name}"
    if not kit.within(module.name, ("ndp_edge.bench",)):
        for name, line in reached:
            benchmark = kit.within(name, ("ndp_edge.bench",))
            assert not benchmark or module.name == "ndp_edge.cli", f"{module.path}:{line}: {name}"


def test_no_import_cycles(kit: SimpleNamespace) -> None:
    """Follows module-level imports of ours; a way back to where it began is a cycle."""
    graph = {
        module.name: {
            name
            for found in module.imports
            if found.top and (name := kit.ours(found)) and name not in {"ndp_edge", module.name}
        }
        for module in kit.MODULES
    }
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in sorted(graph[name]):
                walk(other, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        walk(name, ())


def test_importing_the_package_loads_no_heavy_library(kit: SimpleNamespace) -> None:
    heavy = ["torch", "openvino", "onnxruntime", "cv2", "tensorrt", "pycuda"]
    code = f"import sys, ndp_edge; print([name for name in {heavy} if name in sys.modules])"
    result = kit.run(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_everything_outside_torchs_rooms_imports_without_torch_or_an_engine(
    kit: SimpleNamespace,
) -> None:
    """As on a camera box with the default install, and as doctor must where a wheel is broken.

    None in sys.modules makes an import fail as a missing package does. A backend's own module
    (ndp_edge.engines.openvino) may say so with a MachineError that names the command.
    """
    bench = tuple(room for room in TORCH_ROOMS if kit.within(room, ("ndp_edge.bench",)))
    rooms = ("ndp_edge.losses", "ndp_edge.training", *NETS, *bench)
    names = sorted(
        name for name in kit.NAMES if not kit.within(name, rooms) and "__main__" not in name
    )
    assert {"ndp_edge.build", "ndp_edge.run", "ndp_edge.doctor"} <= set(names)
    code = f"""
import importlib, sys, traceback
from ndp_edge.errors import MachineError
for blocked in ("torch", "tensorboard", "onnxsim", "PIL", "scipy", "openvino", "tensorrt"):
    sys.modules[blocked] = None
for name in {names}:
    try:
        importlib.import_module(name)
    except (ImportError, MachineError) as error:
        if isinstance(error, MachineError) and "pip install openvino" in str(error):
            assert name.startswith("ndp_edge.engines."), name
            continue
        print(name, traceback.format_exc(limit=-2))
"""
    result = kit.run(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


def test_the_walls_see_what_they_should(kit: SimpleNamespace, tmp_path: Path) -> None:
    """The reader itself: relative, lazy and type-only imports are told apart."""
    source = (
        "import torch\nfrom . import sibling\nfrom .engines import base\n"
        "def late():\n    import cv2\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import openvino\n"
    )
    tree = ast.parse(source)
    inner = ast.parse("from .base import Engine\nfrom ..types import Frame\n")
    package = {one.name for one in kit.imports(inner, "ndp_edge.engines", package=True)}
    assert package == {"ndp_edge.engines.base.Engine", "ndp_edge.types.Frame"}
    found = {(one.name, one.top) for one in kit.imports(tree, "ndp_edge.planted", package=False)}
    assert found == {
        ("torch", True),
        ("ndp_edge.sibling", True),
        ("ndp_edge.engines.base", True),
        ("cv2", False),
        ("typing.TYPE_CHECKING", True),
        ("openvino", False),
    }
