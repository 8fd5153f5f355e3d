"""The plugin library on this machine: found or compiled once, and handed to TensorRT.

nvcc and TensorRT are played by stand-ins; tests/kernels_plugin has the real compilers.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ndp_edge.errors import MachineError
from ndp_edge.native import plugin

VERSION_FILES = {
    "10.3": "#define NV_TENSORRT_MAJOR 10 //!< major\n#define NV_TENSORRT_MINOR 3 //!< minor\n",
    "10.16": (
        "#define TRT_MAJOR_ENTERPRISE 10\n#define TRT_MINOR_ENTERPRISE 16\n"
        "#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE //!< x\n"
        "#define NV_TENSORRT_MINOR TRT_MINOR_ENTERPRISE //!< x\n"
    ),
    "11.1": (
        "#define TRT_MAJOR_ENTERPRISE 11\n#define TRT_MINOR_ENTERPRISE 1\n"
        "#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE\n"
        "#define NV_TENSORRT_MINOR TRT_MINOR_ENTERPRISE\n"
    ),
}


def headers(folder: Path, release: str) -> Path:
    """An include folder of that release, as far as its version file goes."""
    place = folder / release
    place.mkdir(exist_ok=True)
    (place / "NvInferVersion.h").write_text(VERSION_FILES[release])
    return place


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of our own, and no headers of the machine's."""
    monkeypatch.setenv("NDP_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TENSORRT_INCLUDE_DIR", raising=False)
    monkeypatch.setattr(plugin, "system_folders", lambda: [])
    monkeypatch.setattr(plugin, "_loaded", set())


@pytest.fixture
def nvcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Writes its arguments into a log and into the file that -o names."""
    script, log = tmp_path / "nvcc", tmp_path / "nvcc.calls"
    log.write_text("")
    script.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo "release 12.6"; exit 0; fi\n'
        f'echo "$@" >> {log}\n'
        'while [ $# -gt 1 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("NDP_NVCC", str(script))
    return log


# --- headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("release", sorted(VERSION_FILES))
def test_both_ways_to_write_a_version(tmp_path: Path, release: str) -> None:
    major, minor = map(int, release.split("."))
    assert plugin.headers_version(headers(tmp_path, release)) == (major, minor)
    assert plugin.headers_version(tmp_path) is None
    (tmp_path / "NvInferVersion.h").write_text("#define NV_TENSORRT_MAJOR SOMETHING\n")
    assert plugin.headers_version(tmp_path) is None


def test_headers_of_the_system_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = headers(tmp_path, "10.3"), headers(tmp_path, "11.1")
    monkeypatch.setattr(plugin, "system_folders", lambda: [tmp_path / "none", old, new])
    assert plugin.find_headers("10.3.0") == old
    assert plugin.find_headers("11.4.0.106") == new


@pytest.mark.parametrize(
    ("release", "version", "fits"),
    [
        ("10.3", "10.3.0", True),
        ("10.3", "10.13.3.9", True),  # older headers of the same major version
        ("10.16", "10.13.3.9", False),
        ("10.16", "11.4.0.106", False),
        ("11.1", "10.16.1.11", False),
        ("11.1", "11.1.0.5", True),
    ],
)
def test_headers_have_to_belong_to_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, version: str, fits: bool
) -> None:
    folder = headers(tmp_path, release)
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(folder))
    if fits:
        assert plugin.find_headers(version) == folder
        return
    with pytest.raises(MachineError, match=rf"{folder} has those of {release}") as caught:
        plugin.find_headers(version)
    assert "apt install libnvinfer-headers-dev" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_headers_name_both_ways_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nvcc: Path
) -> None:
    with pytest.raises(MachineError, match=r"apt install libnvinfer-headers-dev, or set TENSORRT"):
        plugin.plugin_library("10.3.0", 87)
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path / "nothing"))
    with pytest.raises(MachineError, match=r"TENSORRT_INCLUDE_DIR=\S+nothing has none"):
        plugin.plugin_library("10.3.0", 87)
    assert nvcc.read_text() == ""


def test_a_version_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="calls its version 'unknown'"):
        plugin.find_headers("unknown")


# --- compiling --------------------------------------------------------------------------------


def test_compiled_once_per_tensorrt_and_card(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nvcc: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(headers(tmp_path, "10.3")))
    library = plugin.plugin_library("10.3.0", 87)
    assert library.read_text() == "made\n"
    assert library.name.startswith("libndp_plugin-trt10.3.0-sm_87-")
    said = capsys.readouterr().err
    assert f"compiling {library.name}" in said and "compiled in" in said
    assert plugin.plugin_library("10.3.0", 87) == library
    assert capsys.readouterr().err == ""
    assert plugin.plugin_library("10.3.0", 86) != library
    assert plugin.plugin_library("10.13.3.9", 87) != library
    calls = nvcc.read_text().splitlines()
    assert len(calls) == 3
    words = calls[0].split()
    assert "arch=compute_87,code=sm_87" in words and "--no-undefined" in words
    for source in ("plugin/plugin.cpp", "src/rbfrm.cu", "src/ffm_select.cu"):
        assert any(word.endswith(source) for word in words), source


def test_no_nvcc_is_said_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(headers(tmp_path, "10.3")))
    monkeypatch.setenv("NDP_NVCC", str(tmp_path / "nothing"))
    with pytest.raises(MachineError, match="install the CUDA toolkit"):
        plugin.plugin_library("10.3.0", 87)


def test_what_was_compiled_outlives_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nvcc: Path
) -> None:
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(headers(tmp_path, "10.3")))
    library = plugin.plugin_library("10.3.0", 87)
    monkeypatch.setenv("NDP_NVCC", str(tmp_path / "nothing"))
    monkeypatch.delenv("TENSORRT_INCLUDE_DIR")
    assert plugin.plugin_library("10.3.0", 87) == library
    for version, sm in (("10.3.0", 86), ("10.7.0", 87)):
        with pytest.raises(MachineError):
            plugin.plugin_library(version, sm)
    monkeypatch.setattr(plugin, "plugin_hash", lambda: "0" * 64)
    with pytest.raises(MachineError):  # of other sources
        plugin.plugin_library("10.3.0", 87)


def test_the_hash_is_of_the_plugins_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "kernels"
    for folder in ("src", "plugin", "host"):
        (copy / folder).mkdir(parents=True)
    (copy / "src" / "ndp_kernels.h").write_text("a")
    (copy / "plugin" / "plugin.cpp").write_text("b")
    monkeypatch.setenv("NDP_KERNELS", str(copy))
    first = plugin.plugin_hash()
    assert len(first) == 64 and int(first, 16) >= 0
    (copy / "host" / "runner.cpp").write_text("not part of it")
    (copy / "plugin" / "README.md").write_text("nor this")
    assert plugin.plugin_hash() == first
    (copy / "plugin" / "plugin.cpp").write_text("c")
    assert plugin.plugin_hash() != first
    monkeypatch.delenv("NDP_KERNELS")
    assert plugin.plugin_hash() not in (first, "")


# --- loading ----------------------------------------------------------------------------------


class Registry:
    """TensorRT's: lists creators, refuses a library it cannot open or has already."""

    def __init__(self, names: tuple[str, ...] = plugin.PLUGINS) -> None:
        self.names, self.all_creators, self.asked = names, [self.creator("Other")], []

    @staticmethod
    def creator(name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, plugin_version="1", plugin_namespace="")

    def load_library(self, path: str) -> object | None:
        self.asked.append(path)
        if not Path(path).is_file():
            return None
        self.all_creators += [self.creator(name) for name in self.names]
        return object()


def tensorrt(registry: Registry) -> SimpleNamespace:
    return SimpleNamespace(get_plugin_registry=lambda: registry, __version__="10.3.0")


def test_tensorrt_loads_the_library_once(tmp_path: Path) -> None:
    library, registry = tmp_path / "lib.so", Registry()
    library.write_text("")
    for _ in range(2):
        plugin.load_plugin(tensorrt(registry), library)
    assert registry.asked == [str(library)]


def test_a_library_that_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"TensorRT 10\.3\.0 does not load .*delete the file"):
        plugin.load_plugin(tensorrt(Registry()), tmp_path / "lib.so")
    library = tmp_path / "empty.so"
    library.write_text("")
    with pytest.raises(MachineError, match="does not load"):
        plugin.load_plugin(tensorrt(Registry(names=())), library)


def test_another_library_in_the_same_process(tmp_path: Path) -> None:
    registry = Registry()
    for name in ("a.so", "b.so"):
        (tmp_path / name).write_text("")
    plugin.load_plugin(tensorrt(registry), tmp_path / "a.so")
    with pytest.raises(MachineError, match="start a new one"):
        plugin.load_plugin(tensorrt(registry), tmp_path / "b.so")
    assert registry.asked == [str(tmp_path / "a.so")]
