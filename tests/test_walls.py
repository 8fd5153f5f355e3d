"""The walls between the rooms: who may import what, checked on the source and by importing.

Stages hand over files, never live objects; imports point one way (the design's section 2).
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAPPED = ("export", "calib", "bench", "kernels")
VERBS = ("train", "build", "evaluate", "verify", "run", "doctor")

# Import names of the default install; everything else is an extra and stays out of module level.
# google is google.protobuf, which is how onnx itself reads and writes.
DEFAULT = {"numpy", "onnx", "onnxruntime", "openvino", "cv2", "safetensors", "tqdm", "google"}
TORCH_ROOMS = ("ndp_edge.model", "ndp_edge.losses", "ndp_edge.train", "ndp_edge.training")
TORCH_INSIDE_FUNCTIONS = ("ndp_edge.export", "ndp_edge.bench", "ndp_edge.doctor")
TORCH_FREE_IN_MODEL = ("ndp_edge.model", "ndp_edge.model.config")
FORBIDDEN_CALLS = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}


@dataclass(frozen=True)
class Import:
    """One import: the module named (absolute), its line, and whether it runs at import time."""

    name: str
    line: int
    top: bool


@dataclass(frozen=True)
class Module:
    """One source file of the package under the name the wheel gives it."""

    name: str
    path: Path
    tree: ast.Module
    imports: tuple[Import, ...]


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(("ndp_edge", *parts) if parts[0] in MAPPED else parts)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _imports(node: ast.AST, module: str, package: bool, top: bool = True) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, top)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parts = module.split(".")
                parents = parts[: len(parts) - child.level + package]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in child.names:
                yield Import(f"{base}.{alias.name}", child.lineno, top)
        else:
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            lazy = inside or _is_type_checking(child)
            yield from _imports(child, module, package, top and not lazy)


def _load(path: Path) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    name = _name(path)
    found = tuple(_imports(tree, name, path.name == "__init__.py"))
    return Module(name, path, tree, found)


def _modules() -> list[Module]:
    rooms = [ROOT / room for room in ("ndp_edge", *MAPPED)]
    return [_load(path) for room in rooms for path in sorted(room.rglob("*.py"))]


MODULES = _modules()
NAMES = {module.name for module in MODULES}


def _within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def _ours(found: Import) -> str | None:
    """The module of ours that an import reaches (the name itself, or the module it is in)."""
    name = found.name
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return name or None


def _run(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter, away from the repository root."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def test_there_are_modules_in_every_room() -> None:
    rooms = {"ndp_edge.model", "ndp_edge.data", "ndp_edge.engines", "ndp_edge.export"}
    assert rooms | {"ndp_edge.calib", "ndp_edge.bench", "ndp_edge.runtime"} <= NAMES
    assert not any(name.startswith("ndp_edge.kernels") for name in NAMES), "kernels holds no Python"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_third_party_imports_stay_in_the_default_install(module: Module) -> None:
    for found in module.imports:
        root = found.name.partition(".")[0]
        if root in sys.stdlib_module_names or root == "ndp_edge":
            continue
        where = f"{module.path}:{found.line} imports {found.name}"
        assert root not in MAPPED, f"{where}: write ndp_edge.{root}"
        if root in {"torch", "tensorboard", "torchvision"}:
            free = module.name in TORCH_FREE_IN_MODEL
            room = _within(module.name, TORCH_ROOMS) and not free
            lazy = _within(module.name, TORCH_INSIDE_FUNCTIONS) and not found.top
            assert room or lazy, f"{where} outside torch's rooms"
        elif found.top:
            assert root in DEFAULT, f"{where}, which the default install does not have"


# For each room, the rooms of ours it may never reach, lazily or not.
VERB_MODULES = tuple(f"ndp_edge.{verb}" for verb in VERBS)
TRAINING = ("ndp_edge.train", "ndp_edge.training", "ndp_edge.losses")
NETS = tuple(
    f"ndp_edge.model.{part}" for part in ("network", "encoder", "rbam", "decoder", "msdsm")
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


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_imports_point_one_way(module: Module) -> None:
    reached = {(name, found.line) for found in module.imports if (name := _ours(found))}
    if module.name == "ndp_edge.errors":
        assert not reached, "errors.py imports nothing of ours"
    if module.name == "ndp_edge.types":
        assert {name for name, _ in reached} <= {"ndp_edge.errors"}, "types.py: shapes only"
    for room, never in NEVER.items():
        if not _within(module.name, (room,)):
            continue
        for name, line in reached:
            assert not _within(name, never), f"{module.path}:{line}: {room} may not reach {name}"
    if not _within(module.name, ("ndp_edge.bench",)):
        for name, line in reached:
            benchmark = _within(name, ("ndp_edge.bench",))
            assert not benchmark or module.name == "ndp_edge.cli", f"{module.path}:{line}: {name}"


def test_no_import_cycles() -> None:
    """Follows module-level imports of ours; a way back to where it began is a cycle."""
    graph = {
        module.name: {
            name
            for found in module.imports
            if found.top and (name := _ours(found)) and name not in {"ndp_edge", module.name}
        }
        for module in MODULES
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


def _keywords(call: ast.Call) -> dict[str | None, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords}


def _is_constant(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_nothing_unpickles(module: Module) -> None:
    for found in module.imports:
        assert found.name.partition(".")[0] not in FORBIDDEN_CALLS, f"{module.path}:{found.line}"
        assert not found.name.startswith("pycuda.autoinit"), f"{module.path}:{found.line}"
    for node in ast.walk(module.tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        where = f"{module.path}:{node.lineno}"
        keywords = _keywords(node)
        if ast.unparse(node.func) == "torch.load":
            assert _is_constant(keywords.get("weights_only"), True), f"{where}: weights_only=True"
        allow = keywords.get("allow_pickle")
        assert allow is None or _is_constant(allow, False), f"{where}: allow_pickle"


def test_importing_the_package_loads_no_heavy_library() -> None:
    heavy = ["torch", "openvino", "onnxruntime", "cv2", "tensorrt", "pycuda"]
    code = f"import sys, ndp_edge; print([name for name in {heavy} if name in sys.modules])"
    result = _run(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_everything_outside_torchs_rooms_imports_without_torch_or_an_engine() -> None:
    """As on a camera box with the default install, and as doctor must where a wheel is broken.

    None in sys.modules makes an import fail as a missing package does. A backend's own module
    (ndp_edge.engines.openvino) may say so with a MachineError that names the command.
    """
    rooms = ("ndp_edge.losses", "ndp_edge.training", *NETS)
    names = sorted(name for name in NAMES if not _within(name, rooms) and "__main__" not in name)
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
    result = _run(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("room", MAPPED)
@pytest.mark.parametrize("form", ["import {}\n", "from {} import thing\n"])
def test_ruff_refuses_the_bare_names(room: str, form: str) -> None:
    """`python -m` puts the repository root on the path, so a bare import works by accident."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251"]
    planted = subprocess.run(
        [*command, "--stdin-filename", "ndp_edge/planted.py", "-"],
        input=form.format(room),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert planted.returncode == 1
    assert f"import ndp_edge.{room}" in planted.stdout


def test_the_walls_see_what_they_should(tmp_path: Path) -> None:
    """The reader itself: relative, lazy and type-only imports are told apart."""
    source = (
        "import torch\nfrom . import sibling\nfrom .engines import base\n"
        "def late():\n    import cv2\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import openvino\n"
    )
    tree = ast.parse(source)
    inner = ast.parse("from .base import Engine\nfrom ..types import Frame\n")
    package = {one.name for one in _imports(inner, "ndp_edge.engines", package=True)}
    assert package == {"ndp_edge.engines.base.Engine", "ndp_edge.types.Frame"}
    found = {(one.name, one.top) for one in _imports(tree, "ndp_edge.planted", package=False)}
    assert found == {
        ("torch", True),
        ("ndp_edge.sibling", True),
        ("ndp_edge.engines.base", True),
        ("cv2", False),
        ("typing.TYPE_CHECKING", True),
        ("openvino", False),
    }
