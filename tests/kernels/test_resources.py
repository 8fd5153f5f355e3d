"""What the kernels take of a GPU: the kept table, and the comparison that watches over it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ndp_edge.bench import kernel_resources as resources
from ndp_edge.bench.ptxas import Usage, parse, readable
from ndp_edge.errors import GateError, InputError, MachineError
from ndp_edge.native.compile import find_nvcc, kernels_folder
from ndp_edge.native.host import HostKernels

TABLE = kernels_folder() / "resources.tsv"

LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'void ndp::wide<float, (ndp::Layout)1>(ndp::Args)' for 'sm_87'
ptxas info    : Function properties for void ndp::wide<float, (ndp::Layout)1>(ndp::Args)
    48 bytes stack frame, 40 bytes spill stores, 44 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 48 bytes cumulative stack size, 1024 bytes smem, 400 bytes cmem[0], 8 bytes cmem[2]
ptxas info    : Compile time = 12.345 ms
ptxas info    : Compiling entry function 'ndp::(anonymous namespace)::lean(float*, int)' for 'sm_87'
ptxas info    : Function properties for ndp::(anonymous namespace)::lean(float*, int)
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 364 bytes cmem[0]
ptxas info    : Compile time = 0.5 ms
ptxas info    : Function properties for ndp::helper(float)
    16 bytes stack frame, 4 bytes spill stores, 0 bytes spill loads
"""  # noqa: E501


@pytest.fixture(scope="session")
def nvcc() -> str:
    """Where nvcc is; skips where it is not."""
    try:
        return find_nvcc()
    except MachineError as error:
        pytest.skip(str(error))


def kernels_in_sources() -> Iterator[str]:
    """Every name that the sources declare as a kernel, whatever its template arguments."""
    for path in sorted((kernels_folder() / "src").glob("*.cu*")):
        text = re.sub(r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)", "", path.read_text())
        yield from re.findall(r"__global__\s+(?:static\s+)?void\s+(\w+)\(", text)


def test_the_table_has_every_kernel_and_architecture_and_no_spill() -> None:
    table = resources.read_table(TABLE)
    names = {kernel.partition("<")[0] for kernel, _ in table}
    assert names == set(kernels_in_sources())
    assert len(names) >= 3
    kernels = {kernel for kernel, _ in table}
    assert set(table) == {(k, arch) for k in kernels for arch in resources.ARCHITECTURES}
    for (kernel, arch), usage in table.items():
        spilt = usage.stack + usage.spill_stores + usage.spill_loads
        assert spilt == 0, f"{kernel} on sm_{arch}"
        assert 0 < usage.registers <= 255
        assert usage.shared <= 96 * 1024, "more than any architecture but the largest have"


def test_the_table_is_sorted_and_says_how_it_was_made() -> None:
    lines = TABLE.read_text().splitlines()
    assert re.match(r"# .*release \d+\.\d+", lines[0])
    assert lines[1].startswith("# nvcc ")
    assert "-Xptxas -v" in lines[1]
    rows = [line.split("\t") for line in lines[3:]]
    keys = [(row[0], int(row[1])) for row in rows]
    assert keys == sorted(keys)


def compare_fresh(architectures: tuple[int, ...]) -> None:
    table = resources.read_table(TABLE)
    found = resources.measure(architectures)
    assert {arch for _, arch in found} == set(architectures)
    assert resources.compare(found, table) == []


def test_the_jetsons_kernels_are_as_the_table_has_them(nvcc: str) -> None:
    compare_fresh((87,))


@pytest.mark.slow
def test_all_kernels_are_as_the_table_has_them(nvcc: str) -> None:
    compare_fresh(resources.ARCHITECTURES)


def test_reading_ptxas() -> None:
    assert parse(LOG) == {
        "wide<float, 1>": Usage(255, 1024, 408, 48, 40, 44),
        "lean": Usage(8, 0, 364, 0, 0, 0),
        "helper": Usage(0, 0, 0, 16, 4, 0),
    }


def test_shared_memory_of_a_launch(host: HostKernels) -> None:
    """Which ptxas cannot know: the sources' own constants, and no guess for a new kernel."""
    names = ["smooth_peak", "smooth_tiles"]
    assert resources.launched_with("smooth_max.cu", names) == {
        "smooth_peak": 8 * 4,
        "smooth_tiles": (36 * 12 + 8) * 4,
    }
    with pytest.raises(GateError, match=r"newer<float> of smooth_max\.cu"):
        resources.launched_with("smooth_max.cu", ["newer<float>"])


def test_a_log_without_the_frame_is_not_taken_for_one_without_spills() -> None:
    lines = LOG.splitlines(keepends=True)
    with pytest.raises(GateError, match="wide<float, 1>"):
        parse("".join(lines[:2] + lines[4:6]))
    with pytest.raises(GateError, match="wide<float, 1>"):
        parse("".join(lines[:3] + lines[4:6]))
    with pytest.raises(GateError, match="no kernel"):
        parse("ptxas info    : 0 bytes gmem\n")


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("void ndp::(anonymous namespace)::scale<float, (Layout)1>(float*)", "scale<float, 1>"),
        ("void ndp::mix<__half, -4, (ndp::A)2>(ndp::B<int>, int)", "mix<__half, -4, 2>"),
        ("plain(float*)", "plain"),
        ("plain", "plain"),
    ],
)
def test_readable_names(name: str, short: str) -> None:
    assert readable(name) == short


KEPT = {("lean", 75): Usage(40, 0, 0, 0, 0, 0), ("lean", 87): Usage(40, 0, 0, 0, 0, 0),
        ("wide<float>", 87): Usage(64, 1024, 0, 0, 0, 0)}  # fmt: skip


def test_what_is_like_the_table_passes() -> None:
    more = {key: replace(usage, registers=usage.registers + 8) for key, usage in KEPT.items()}
    fewer = {key: replace(usage, registers=1) for key, usage in KEPT.items()}
    for found in (KEPT, more, fewer):
        assert resources.compare(found, KEPT) == []


def test_an_architecture_that_was_not_compiled_is_not_missed() -> None:
    found = {key: usage for key, usage in KEPT.items() if key[1] == 87}
    assert resources.compare(found, KEPT) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"registers": 49}, ["49 registers", "40"]),
        ({"spill_stores": 4}, ["4 of spill stores"]),
        ({"spill_loads": 8}, ["8 of spill loads"]),
        ({"stack": 16}, ["16 bytes of stack"]),
        ({"shared": 4}, ["4 bytes of shared memory"]),
    ],
)
def test_what_is_worse_fails_by_name(changed: dict[str, int], words: list[str]) -> None:
    found = {**KEPT, ("lean", 87): replace(KEPT["lean", 87], **changed)}
    (line,) = resources.compare(found, KEPT)
    assert line.startswith("lean on sm_87: ")
    assert all(word in line for word in words)


def test_a_kept_spill_is_still_a_spill() -> None:
    """Writing the table again is no way around it."""
    spilt = {("lean", 87): replace(KEPT["lean", 87], spill_loads=8)}
    assert len(resources.compare(spilt, spilt)) == 1


def test_a_kernel_that_came_or_went_fails_by_name() -> None:
    found = {key: usage for key, usage in KEPT.items() if key[0] == "lean"}
    (gone,) = resources.compare(found, KEPT)
    assert gone.startswith("wide<float> on sm_87: ")
    (new,) = resources.compare(KEPT, found)
    assert new.startswith("wide<float> on sm_87: ")
    assert "not in the table" in new


def test_the_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text(resources.table_text(KEPT, "a version"))
    assert resources.read_table(path) == KEPT
    for broken in ("", "kernel\tsm\n", path.read_text() + "lean\t89\tmany\n"):
        path.write_text(broken)
        with pytest.raises(InputError, match="--write"):
            resources.read_table(path)
    with pytest.raises(MachineError, match="--write"):
        resources.read_table(tmp_path / "none.tsv")


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit codes and messages; compiling is stood in for."""
    table = resources.read_table(TABLE)
    worse = {key: replace(usage, stack=8) for key, usage in table.items() if key[1] == 87}
    good = {key: usage for key, usage in table.items() if key[1] == 87}
    before = TABLE.read_bytes()
    for found, code in ((good, 0), (worse, 1)):
        monkeypatch.setattr(resources, "measure", lambda _, found=found: found)
        assert resources.main(["--check", "--arch", "87"]) == code
    said = capsys.readouterr().err
    assert all(f"{kernel} on sm_{arch}: 8 bytes of stack" in said for kernel, arch in worse)
    assert resources.main(["--write", "--arch", "87"]) == 2
    monkeypatch.setattr(resources, "measure", lambda _: worse)
    assert resources.main(["--write"]) == 1
    assert TABLE.read_bytes() == before
    with pytest.raises(SystemExit, match="2"):
        resources.main(["--arch", "88"])


def test_without_nvcc_one_line_and_exit_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("NDP_NVCC", str(tmp_path / "nvcc"))
    assert resources.main(["--arch", "87"]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1
