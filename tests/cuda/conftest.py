"""The fakes beside this file, importable by name: the tests' import mode leaves folders out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with fake_driver.c's libcuda.so.1; skips without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here: the fake driver cannot be built")
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-O1"]
    command += ["-Wl,-soname,libcuda.so.1", "-o", str(library), str(HERE / "fake_driver.c"), "-ldl"]
    subprocess.run(command, check=True)
    return folder
