"""Every name of TensorRT that the sources use exists in all four versions, or is looked up.

The names come from ../shared/trt_api, one file a version. A name that some version lacks may be
asked for through `trt_compat.find` alone, which answers None where it is missing.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ndp_edge.engines.trt_compat import RTX_NAMES

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("ndp_edge", "export", "calib", "bench")
WHOLE = ("__version__",)
"""Attributes of every Python module; the files list public names alone."""

Api = dict[str, list[str]]

OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "inspector": "EngineInspector",
    "runtime": "Runtime",
    "_runtime": "Runtime",
    "_engine": "ICudaEngine",
    "context": "IExecutionContext",
}
"""What variables in the files below are called, and of which class they are."""

OBJECT_FILES = ("trt_builder.py", "trt_plan.py", "trt_slot.py", "trt_report.py")


def api_folder() -> Path | None:
    """shared/trt_api: beside NDP_EDGE_DATA where that is set, else beside the checkout."""
    named = os.environ.get("NDP_EDGE_DATA")
    shared = Path(named).parent if named else ROOT.parent / "shared"
    return shared / "trt_api" if (shared / "trt_api").is_dir() else None


@pytest.fixture(scope="module")
def apis() -> dict[str, Api]:
    folder = api_folder()
    if folder is None:
        pytest.skip("no TensorRT API files here: ../shared/trt_api, or beside NDP_EDGE_DATA")
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    assert len(found) == 4
    return found


@dataclass(frozen=True)
class Use:
    """One use: the dotted name, its line, and whether `find` asks for it."""

    name: str
    line: int
    asked: bool


def uses(source: str, file: str = "") -> Iterator[Use]:
    """Every `trt.X.Y`, `find(trt, "X.Y")` and, in OBJECT_FILES, attribute of TensorRT's objects."""
    tree = ast.parse(source)
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            parts = _chain(node)
            if len(parts) > 1:
                yield Use(".".join(parts[1:]), node.lineno, asked=False)
        if isinstance(node, ast.Attribute) and Path(file).name in OBJECT_FILES:
            owner = node.value
            name = getattr(owner, "id", getattr(owner, "attr", ""))
            if name in OBJECTS:
                yield Use(f"{OBJECTS[name]}.{node.attr}", node.lineno, asked=False)
        if isinstance(node, ast.Call) and _called(node) == "find" and len(node.args) == 2:
            text = _text(node.args[1])
            if text is not None:
                yield Use(text, node.lineno, asked=True)


def _chain(node: ast.expr) -> list[str]:
    """["trt", "BuilderFlag", "INT8"] of `trt.BuilderFlag.INT8`, of `self._trt.…` likewise."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        if node.attr in ("trt", "_trt"):
            return ["trt", *reversed(parts)]
        parts.append(node.attr)
        node = node.value
    root = [node.id] if isinstance(node, ast.Name) and node.id == "trt" else []
    return [*root, *reversed(parts)] if root else []


def _called(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def _text(node: ast.expr) -> str | None:
    """The name asked for; of an f-string the part before its first hole, up to a dot."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        return str(node.values[0].value).rstrip(".")
    return None


def known(name: str, api: Api) -> bool:
    """Whether a version has it; dunders and what stands behind a member are Python's own."""
    first, _, rest = name.partition(".")
    member = rest.partition(".")[0]
    if first in WHOLE or member.startswith("__"):
        return True
    return first in api and (not member or member in api[first])


def faults(source: str, apis: dict[str, Api], file: str = "planted.py") -> list[str]:
    """What breaks the contract, one line each."""
    told = []
    for use in uses(source, file):
        lacking = [version for version, api in apis.items() if not known(use.name, api)]
        if use.asked and len(lacking) == len(apis) and use.name not in RTX_NAMES:
            told.append(f"{file}:{use.line}: no version has {use.name}")
        elif not use.asked and lacking:
            told.append(f"{file}:{use.line}: trt.{use.name} is not in {', '.join(lacking)}")
    return told


def _sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def test_every_name_is_in_all_versions_or_looked_up(apis: dict[str, Api]) -> None:
    told = [line for path in _sources() for line in faults(path.read_text(), apis, str(path))]
    assert told == []


def test_the_sources_use_what_is_checked(apis: dict[str, Api]) -> None:
    found = {use.name for path in _sources() for use in uses(path.read_text(), str(path))}
    assert {
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser",
        "Builder.build_serialized_network",
        "IBuilderConfig.builder_optimization_level",
        "Runtime.deserialize_cuda_engine",
        "BuilderFlag",
        "IBuilderConfig.int8_calibrator",
        "ComputeCapability",
    } <= found


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("config.set_flag(trt.BuilderFlag.INT8)", "trt.BuilderFlag.INT8 is not in tensorrt-11"),
        ("flag = self._trt.BuilderFlag.FP16", "BuilderFlag.FP16 is not in tensorrt-11"),
        ("trt.ComputeCapability.SM86", "trt.ComputeCapability.SM86 is not in"),
        ("trt.IInt8EntropyCalibrator2", "not in tensorrt-11"),
        ("f = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)", "EXPLICIT_BATCH"),
        ("find(trt, 'BuilderFlag.INT9')", "no version has BuilderFlag.INT9"),
    ],
)
def test_a_planted_name_fails(apis: dict[str, Api], source: str, words: str) -> None:
    (told,) = faults(source, apis)
    assert words in told


def test_a_planted_attribute_of_an_object_fails(apis: dict[str, Api]) -> None:
    for source in ("config.int8_calibrator = x", "engine = self._engine.device_memory_size"):
        (told,) = faults(source, apis, "trt_builder.py")
        assert "is not in tensorrt-11" in told


def test_what_is_looked_up_may_be_missing(apis: dict[str, Api]) -> None:
    source = "find(trt, 'BuilderFlag.INT8')\nfind(trt, f'BuilderFlag.{name}')\ntrt.__version__"
    assert faults(source, apis) == []
    assert len(list(uses(source))) == 3


def test_what_only_rtx_has_is_there(apis: dict[str, Api]) -> None:
    """The names that none of the four files can vouch for, against the library itself."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed here: pip install 'ndp-edge[rtx]'")
    import tensorrt_rtx_bindings  # type: ignore[import-not-found, import-untyped, unused-ignore]

    def has(owner: Any, path: str) -> bool:
        first, _, rest = path.partition(".")
        return hasattr(owner, first) and (not rest or has(getattr(owner, first), rest))

    assert [name for name in RTX_NAMES if not has(tensorrt_rtx_bindings, name)] == []
    assert all(not all(known(n, api) for api in apis.values()) for n in RTX_NAMES)
