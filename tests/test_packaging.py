"""The wheel as a user gets it: one top-level name, every room inside, no torch by default."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("ndp_edge", "kernels", "export", "calib", "bench")
ONNX_LIMIT = 9_000_000
"""Bytes that the shipped net may weigh."""


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the wheel is built from, so that no leftover build/ here gets into it."""
    source = tmp_path_factory.mktemp("source")
    for room in ROOMS:
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / room, source / room, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    return source


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built once."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    built = subprocess.run(
        [*command, "--disable-pip-version-check", "-w", str(out), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def names(wheel: Path) -> set[str]:
    """Every file in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def about(wheel: Path) -> Message:
    """The wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_one_top_level_name(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ndp_edge"}


def _inside(path: Path, source: Path) -> str:
    """Where a file of the checkout stands in the wheel."""
    relative = path.relative_to(source).as_posix()
    return relative if relative.startswith("ndp_edge/") else f"ndp_edge/{relative}"


def test_every_file_that_belongs_is_in_the_wheel(source: Path, names: set[str]) -> None:
    """A new folder that pyproject.toml does not list would be missing for users only."""
    page = {".html", ".css", ".js"}
    suffixes = {".py", *page, ".onnx", ".typed", ".cu", ".cuh", ".h", ".hpp", ".cpp"}
    files = [path for path in source.rglob("*") if path.suffix in suffixes]
    left_out = {"build", "suites"}  # what is compiled here, and what only pytest runs
    files = [path for path in files if not left_out & set(path.relative_to(source).parts)]
    assert len(files) > 20
    missing = {_inside(path, source) for path in files} - names
    assert not missing, "list its package or its suffix in pyproject.toml"
    assert {"ndp_edge/py.typed", "ndp_edge/kernels/README.md"} <= names
    assert "ndp_edge/kernels/__init__.py" not in names


def test_nothing_stray_is_in_the_wheel(names: set[str]) -> None:
    stray = re.compile(r"__pycache__|\.pyc$|(^|/)(tests?|suites)/|\.safetensors$|\.npz$|\.so$")
    assert not [name for name in names if stray.search(name)]


def test_the_shipped_net_fits(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        nets = [info for info in archive.infolist() if info.filename.endswith(".onnx")]
    assert [info.filename for info in nets] == ["ndp_edge/data/nano_woven.onnx"]
    assert 0 < nets[0].file_size <= ONNX_LIMIT


def test_metadata(about: Message) -> None:
    assert about["Name"] == "ndp-edge"
    assert about["License-Expression"] == "Apache-2.0"
    python = SpecifierSet(about["Requires-Python"])
    assert "3.9" not in python
    assert all(version in python for version in ("3.10", "3.11", "3.12", "3.13"))
    requires = [Requirement(text) for text in about.get_all("Requires-Dist", [])]
    default = {one.name for one in requires if one.marker is None}
    assert default == {
        "numpy",
        "onnx",
        "onnxruntime",
        "openvino",
        "opencv-python-headless",
        "safetensors",
        "tqdm",
    }
    assert {"train", "tensorrt", "rtx", "dev"} <= set(about.get_all("Provides-Extra", []))


def test_version_is_said_once(about: Message) -> None:
    import ndp_edge

    assert about["Version"] == ndp_edge.__version__
    assert f"version: {ndp_edge.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_wheel_alone_imports_every_room(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import ndp_edge.export, ndp_edge.calib, ndp_edge.bench\n"
        "from importlib.resources import files\n"
        "print(ndp_edge.export.__file__)\n"
        "print(files('ndp_edge.kernels').joinpath('README.md').is_file())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    where, kernels = result.stdout.split()
    assert Path(where).is_relative_to(tmp_path)
    assert kernels == "True"


def _installed(requirement: Requirement, seen: set[str]) -> None:
    """Adds to `seen` what a requirement brings here, all the way down."""
    name = canonicalize_name(requirement.name)
    extras = requirement.extras or {""}
    wanted = [
        Requirement(text)
        for text in metadata.requires(name) or []
        if any(_applies(Requirement(text), extra) for extra in extras)
    ]
    for one in wanted:
        key = canonicalize_name(one.name)
        if key not in seen or one.extras:
            seen.add(key)
            _installed(one, seen)


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def test_everything_that_the_dev_extra_installs_is_pinned() -> None:
    """Otherwise an unpinned newcomer changes what `make test` means from one day to the next."""
    pattern = re.compile(r"^([A-Za-z0-9_.-]+)==[^;\s]+(;.*)?$", re.MULTILINE)
    pins = {canonicalize_name(one[1]) for one in pattern.finditer(_constraints())}
    installed: set[str] = set()
    _installed(Requirement("ndp-edge[dev]"), installed)
    installed.discard("ndp-edge")
    gpu_build = re.compile(r"^(nvidia-|cuda-|triton$)")  # torch pins its own when it is not +cpu
    assert {"numpy", "torch", "openvino", "pytest"} <= installed
    assert {name for name in installed - pins if not gpu_build.search(name)} == set()


def _constraints() -> str:
    text = (ROOT / "constraints.txt").read_text()
    for line in text.splitlines():
        assert not line or line.startswith("#") or "==" in line, f"not an exact pin: {line}"
    return text
