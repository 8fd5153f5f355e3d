"""The checkout itself: sizes that stay readable, and a README whose commands exist."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES = 300
FUNCTION_LINES = 60
REPOSITORY_FILE = 12 * 2**20
README = ROOT / "README.md"
VERBS = {"train", "build", "evaluate", "verify", "run", "bench", "doctor"}


@lru_cache(maxsize=1)
def tracked() -> tuple[Path, ...]:
    """Every file that git tracks and that is still here."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def python_files() -> list[Path]:
    """The tracked Python files."""
    return [path for path in tracked() if path.suffix == ".py"]


def relative(path: Path) -> str:
    """A name for messages."""
    return path.relative_to(ROOT).as_posix()


def test_python_files_are_short() -> None:
    long = {relative(path): len(path.read_text().splitlines()) for path in python_files()}
    assert len(long) > 10
    assert {name: lines for name, lines in long.items() if lines > FILE_LINES} == {}


def test_functions_are_short() -> None:
    long = {}
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long[f"{relative(path)}:{node.lineno} {node.name}"] = lines
    assert long == {}


def test_no_file_is_large() -> None:
    sizes = {relative(path): path.stat().st_size for path in tracked()}
    assert {name: size for name, size in sizes.items() if size > REPOSITORY_FILE} == {}


def test_nothing_is_left_open() -> None:
    """A to-do belongs into an issue, where someone sees it."""
    marker = re.compile("|".join(rf"\b{word[::-1]}\b" for word in ("ODOT", "EMXIF")))
    suffixes = {".py", ".cu", ".cuh", ".h", ".cpp"}
    texts = [path for path in tracked() if path.suffix in suffixes]
    assert [relative(path) for path in texts if marker.search(path.read_text())] == []


def test_the_version_is_everywhere_the_same() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert f'__version__ = "{version[1]}"' in (ROOT / "ndp_edge" / "__init__.py").read_text()
    assert f"version: {version[1]}\n" in (ROOT / "CITATION.cff").read_text()


def test_ci_runs_make_test_and_nothing_beside_it() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111 == 0o111
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert re.findall(r"^(?:exec )?make .*$", text, re.M) == ["exec make test </dev/null"]


def readme_commands() -> list[list[str]]:
    """The words of each command in the README's shell blocks; continued lines are joined."""
    blocks = re.findall(
        r"^```(?:sh|bash|shell|console)\n(.*?)^```", README.read_text(), re.M | re.S
    )
    commands = []
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        for part in line.removeprefix("$ ").split("&&"):
            words = shlex.split(part, comments=True)
            while words and re.match(r"^[A-Z_]+=", words[0]):
                words = words[1:]
            if words:
                commands.append(words)
    return commands


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))


def _module_file(module: str) -> Path | None:
    parts = module.split(".")
    inside = parts[1:] if parts[1:2] and parts[1] in {"export", "calib", "bench"} else parts
    base = ROOT.joinpath(*inside)
    found = [base.with_suffix(".py"), base / "__main__.py"]
    return next((path for path in found if path.is_file()), None)


def test_readme_shows_the_two_commands() -> None:
    commands = [" ".join(words) for words in readme_commands()]
    assert "make demo" in commands
    assert any(command.startswith("python -m ndp_edge.build") for command in commands)


def test_readme_commands_exist() -> None:
    for words in readme_commands():
        line = " ".join(words)
        if words[0] == "make":
            assert next(word for word in words[1:] if "=" not in word) in _targets(), line
        if words[0] == "ndp-edge":
            assert words[1] in VERBS, line
        if words[:2] == ["python", "-m"] and words[2].startswith("ndp_edge"):
            assert _module_file(words[2]) is not None, f"{line}: no such module"


def _module_options() -> dict[str, set[str]]:
    """Module -> the long options that the README gives it."""
    used: dict[str, set[str]] = {}
    for words in readme_commands():
        module = None
        if words[:2] == ["python", "-m"] and words[2].startswith("ndp_edge"):
            module = words[2]
        elif words[0] == "ndp-edge" and len(words) > 1:
            module = f"ndp_edge.{words[1]}"
        if module:
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            used.setdefault(module, set()).update(options)
    return used


def test_readme_options_exist() -> None:
    """Every option that the README shows is one that the verb's own --help names."""
    used = _module_options()
    if not used:
        pytest.fail("README.md shows no command of ours")
    for module, options in sorted(used.items()):
        command = [sys.executable, "-m", module, "--help"]
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert shown.returncode == 0, f"{module} --help: {shown.stderr}"
        known = set(re.findall(r"--[a-z0-9][a-z0-9-]*", shown.stdout))
        assert options <= known, f"{module} has no {sorted(options - known)}"


def test_markdown_links_lead_somewhere() -> None:
    broken = []
    for page in (path for path in tracked() if path.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            outside = re.match(r"^[a-z]+:", target)
            if not outside and not (page.parent / target).exists():
                broken.append(f"{relative(page)}: {target}")
    assert broken == []


def test_the_files_that_the_readme_names_exist() -> None:
    """Paths in backquotes with a folder of ours in front: the file map must not rot."""
    rooms = r"(?:ndp_edge|kernels|export|calib|bench|tests)"
    named = set(re.findall(rf"`({rooms}/[\w./-]+)`", README.read_text()))
    assert {name for name in named if not (ROOT / name).exists()} == set()
