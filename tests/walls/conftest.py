"""The package's source files and what each imports, read without importing any."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MAPPED = ("export", "calib", "bench", "kernels")


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
    # bench/suites is for pytest alone, and not in the wheel.
    files = (path for room in rooms for path in sorted(room.rglob("*.py")))
    return [_load(path) for path in files if "suites" not in path.parts]


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


@pytest.fixture(params=MODULES, ids=lambda module: module.name)
def module(request: pytest.FixtureRequest) -> Module:
    """Each source file of the package in turn."""
    one: Module = request.param
    return one


@pytest.fixture(params=MAPPED)
def room(request: pytest.FixtureRequest) -> str:
    """Each folder that the wheel maps under ndp_edge."""
    return str(request.param)


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The functions above, for test files that cannot import this one."""
    return SimpleNamespace(
        ROOT=ROOT,
        MAPPED=MAPPED,
        NAMES=NAMES,
        MODULES=MODULES,
        within=_within,
        ours=_ours,
        imports=_imports,
        run=_run,
    )
