"""What no room may do: unpickle, or import a mapped room by its bare name."""

from __future__ import annotations

import ast
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

FORBIDDEN_CALLS = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}


def _keywords(call: ast.Call) -> dict[str | None, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords}


def _is_constant(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_nothing_unpickles(module: Any) -> None:
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


@pytest.fixture(params=["import {}\n", "from {} import thing\n"])
def form(request: pytest.FixtureRequest) -> str:
    """Each way to write an import."""
    return str(request.param)


def test_ruff_refuses_the_bare_names(kit: SimpleNamespace, form: str, room: str) -> None:
    """`python -m` puts the repository root on the path, so a bare import works by accident."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251"]
    planted = subprocess.run(
        [*command, "--stdin-filename", "ndp_edge/planted.py", "-"],
        input=form.format(room),
        capture_output=True,
        text=True,
        check=False,
        cwd=kit.ROOT,
    )
    assert planted.returncode == 1
    assert f"import ndp_edge.{room}" in planted.stdout
