"""`bench.accuracy`: plans, resuming, and the table; trainings are real in the slow test alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ndp_edge.bench import accuracy
from ndp_edge.bench.accuracy_plan import read_plan
from ndp_edge.bench.accuracy_table import group, markdown
from ndp_edge.data.surface import write_surface
from ndp_edge.errors import InputError, NdpError

TINY = ["--image-size", "64", "--batch-size", "2", "--threads", "1", "--perceptual", "none"]


def a_plan(path: Path, **changes: Any) -> Path:
    plan: dict[str, Any] = {
        "common": [*TINY, "--steps", "2", "2"],
        "surfaces": {"cloth": {"data": "cloth", "options": ["--opacity", "0.3", "1"]}},
        "presets": {"nano": []},
        "recipes": {"base": [], "averaged (ours)": ["--ema", "0.5"]},
        "seeds": [0, 1],
        **changes,
    }
    path.write_text(json.dumps(plan))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "cloth").mkdir(parents=True)
    return tmp_path / "data"


class Verbs:
    """Stands in for the verbs: remembers, and leaves what they would."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.broken = ""

    def __call__(self, folder: Path, name: str, *words: str, fine: Any = (0,)) -> None:
        self.calls.append((name, words))
        if name == self.broken:
            raise NdpError(f"{name} ended with exit code 1")
        if name == "build":
            seed = int(folder.name[-1])
            figures = {"image_auroc": 0.9 + 0.02 * seed, "pixel_auroc": 0.8, "aupro": 0.7}
            figures |= {"false_reject_rate": 0.0, "miss_rate": None}
            report = {
                "gate": {"passed": seed == 0, "reason": "because"},
                "metrics": {"fp32": figures, "int8": figures},
            }
            Path(words[words.index("--json") + 1]).write_text(json.dumps(report))
        if name == "bench.torch_judge":
            one = {"image_auroc": 0.75, "pixel_auroc": 0.8, "aupro": 0.7}
            head = {"test": one | {"miss_rate": 0.5}, "tune": one}
            told = {"test": {"fp32": one}, "tune": {"fp32": one}, "heads": {"AM1": head}}
            Path(words[words.index("--json") + 1]).write_text(json.dumps(told))


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> Verbs:
    found = Verbs()
    monkeypatch.setattr(accuracy, "verb", found)
    monkeypatch.setattr(
        accuracy,
        "tune_figures",
        lambda cell, model: {"image_auroc": 0.5, "pixel_auroc": 0.6, "aupro": 0.7},
    )
    return found


def test_a_plan_is_run_once_and_then_read_back(
    root: Path, tmp_path: Path, verbs: Verbs, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = a_plan(tmp_path / "plan.json"), tmp_path / "out"
    words = [str(plan), "--out", str(out), "--data-root", str(root), "--lanes", "2"]
    told, table = tmp_path / "t.json", tmp_path / "t.md"
    assert accuracy.main([*words, "--json", str(told), "--markdown", str(table)]) == 0
    assert [name for name, _ in verbs.calls].count("train") == 4
    assert table.read_text() in capsys.readouterr().out
    rows = json.loads(told.read_text())["rows"]
    assert [row["recipe"] for row in rows] == ["base", "averaged (ours)"]
    spread = rows[0]["test"]["int8"]["image_auroc"]
    assert spread == pytest.approx({"mean": 0.91, "low": 0.9, "high": 0.92, "n": 2})
    assert "miss_rate" not in rows[0]["test"]["int8"]
    assert (rows[0]["seeds"], rows[0]["gate_failed"]) == ([0, 1], 1)
    assert "0.9100 (0.9000 to 0.9200)" in table.read_text()
    done = len(verbs.calls)
    assert accuracy.main(words) == 0
    assert len(verbs.calls) == done


def test_what_a_cell_is_trained_with(root: Path, tmp_path: Path, verbs: Verbs) -> None:
    plan = a_plan(tmp_path / "plan.json", common=["--anomaly-source", "{data}/more"])
    words = [str(plan), "--out", str(tmp_path / "out"), "--data-root", str(root)]
    assert accuracy.main([*words, "--only", "averaged-ours-1"]) == 0
    name, options = verbs.calls[0]
    assert name == "train"
    assert options[: options.index("--out")] == ("--data", str(root / "cloth"))
    text = " ".join(options)
    assert f"--anomaly-source {root}/more --opacity 0.3 1 --ema 0.5 --preset nano --seed 1" in text
    assert "--resume" not in options


def test_a_verb_that_fails_leaves_no_record_and_is_tried_again(
    root: Path, tmp_path: Path, verbs: Verbs, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = a_plan(tmp_path / "plan.json", seeds=[0]), tmp_path / "out"
    words = [str(plan), "--out", str(out), "--data-root", str(root), "--only", "base"]
    verbs.broken = "export"
    assert accuracy.main(words) == 1
    assert "export ended" in capsys.readouterr().err
    assert not list(out.glob("*/record.json"))
    verbs.broken = ""
    assert accuracy.main(words) == 0
    # The same folder with other options would mix two recipes under one name.
    a_plan(plan, seeds=[0], common=["--lr", "0.1"])
    assert accuracy.main(words) == 2
    assert "other options" in capsys.readouterr().err


def test_one_failed_training_does_not_cost_the_others(
    root: Path, tmp_path: Path, verbs: Verbs, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out, told = a_plan(tmp_path / "plan.json"), tmp_path / "out", tmp_path / "t.json"
    words = [str(plan), "--out", str(out), "--data-root", str(root), "--json", str(told)]
    whole = verbs.__call__

    def broken(folder: Path, name: str, *rest: str, fine: Any = (0,)) -> None:
        if name == "train" and folder.name == "cloth-nano-base-1":
            raise NdpError("train ended with exit code 1")
        whole(folder, name, *rest, fine=fine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accuracy, "verb", broken)
        assert accuracy.main(words) == 1
    assert "train ended" in capsys.readouterr().err
    assert len(json.loads(told.read_text())["cells"]) == 3
    done = len(verbs.calls)
    # The table of what is done trains nothing.
    assert accuracy.main([*words, "--table"]) == 0
    assert len(verbs.calls) == done
    assert len(json.loads(told.read_text())["cells"]) == 3


def test_a_table_may_be_read_where_the_data_lie_elsewhere(
    root: Path, tmp_path: Path, verbs: Verbs
) -> None:
    plan = a_plan(tmp_path / "plan.json", common=["--anomaly-source", "{data}/more"], seeds=[0])
    words = [str(plan), "--out", str(tmp_path / "out")]
    assert accuracy.main([*words, "--data-root", str(root)]) == 0
    done = len(verbs.calls)
    elsewhere = root.rename(tmp_path / "elsewhere")
    assert accuracy.main([*words, "--data-root", str(elsewhere)]) == 0
    assert len(verbs.calls) == done


def test_the_torch_judge_needs_no_build(
    root: Path, tmp_path: Path, verbs: Verbs, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = {"whole": ["--ema", "0.5"], "lacking": ["--ablate", "ssim"]}
    common = ["--device", "cpu", "--threads", "1"]
    plan = a_plan(tmp_path / "plan.json", common=common, recipes=recipes, seeds=[0])
    told, out = tmp_path / "t.json", tmp_path / "out"
    words = [str(plan), "--out", str(out), "--data-root", str(root)]
    # A net that lacks a part must not be exported as if it were whole.
    assert accuracy.main(words) == 2
    assert "--judge torch" in capsys.readouterr().err
    assert not verbs.calls
    assert accuracy.main([*words, "--judge", "torch", "--json", str(told)]) == 0
    names = [name for name, _ in verbs.calls]
    assert names == ["train", "bench.torch_judge", "bench.ablated", "bench.torch_judge"]
    judging = " ".join(verbs.calls[1][1])
    assert f"--data {root / 'cloth'} --device cpu --threads 1 --json" in judging
    rows = json.loads(told.read_text())["rows"]
    assert [row["gate_failed"] for row in rows] == [0, 0]
    text = capsys.readouterr().out
    assert "| cloth, nano, whole (1 x 0 min) | FP32 | 0.7500 | 0.8000 | 0.7000 | - | - |" in text
    assert "|  | INT8 | - | - | - | - | - |" in text
    assert "| cloth, nano, whole | AM1 | FP32 | 0.7500 | 0.8000 | 0.7000 | - | 50.0 % |" in text
    # What is on record says by whom it was judged.
    assert accuracy.main([*words, "--only", "whole"]) == 2
    assert "judged otherwise" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"speed": 1}, "wanted the keys"),
        ({"surfaces": {"cloth": {"data": "silk"}}}, "no folder"),
        ({"recipes": {"a b": [], "a-b": []}}, "share a folder"),
    ],
)
def test_plans_that_are_none(
    root: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read_plan(a_plan(tmp_path / "plan.json", **changes), root, tmp_path / "out")


def test_a_plan_of_real_surfaces_needs_to_know_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data-root"):
        read_plan(a_plan(tmp_path / "plan.json"), None, tmp_path)


def test_a_teacher_may_be_another_cell(root: Path, tmp_path: Path) -> None:
    plan = a_plan(tmp_path / "plan.json", recipes={"a": ["--teacher", "{out}/edge-{seed}/run"]})
    cells = read_plan(plan, root, tmp_path / "out")
    assert [c.option("--teacher") for c in cells] == [
        f"{tmp_path}/out/edge-{seed}/run" for seed in (0, 1)
    ]
    assert [c.told[c.told.index("--teacher") + 1] for c in cells] == [
        f"{{out}}/edge-{seed}/run" for seed in (0, 1)
    ]


@pytest.mark.parametrize("plan", sorted(accuracy.PLANS.glob("*.json")), ids=lambda p: p.stem)
def test_the_plans_that_ship_are_plans(plan: Path, tmp_path: Path) -> None:
    from ndp_edge.bench import ablated
    from ndp_edge.train import parser, read_options

    for name in ("kolektor_sdd", "dagm_class1"):
        (tmp_path / name).mkdir()
    cells = read_plan(plan, tmp_path, tmp_path / "out")
    assert len(cells) >= 6
    for cell in cells:
        reader = ablated.parser() if cell.option("--ablate") else parser()
        args = reader.parse_args([*cell.where(), "--out", "x", *cell.options])
        assert (args.preset, args.seed) == (cell.preset, cell.seed)
        read_options(args, 100)


def test_one_seed_has_no_spread_and_nothing_measured_no_figure() -> None:
    record = {
        "surface": "s", "preset": "nano", "recipe": "r", "seed": 0, "minutes": 1.0,
        "gate_passed": True, "test": {"fp32": {"image_auroc": 0.5}}, "tune": {},
    }  # fmt: skip
    text = markdown(group([record]))
    assert "| s, nano, r (1 x 1 min) | FP32 | 0.5000 | - | - | - | - |" in text


@pytest.mark.slow  # half a minute: two trainings and builds
def test_a_tiny_table_for_real(tmp_path: Path) -> None:
    write_surface("woven", tmp_path / "cloth", train=60, good=4, defects=5, size=64)
    plan = a_plan(tmp_path / "plan.json", seeds=[0])
    told = tmp_path / "t.json"
    words = [str(plan), "--out", str(tmp_path / "out"), "--data-root", str(tmp_path)]
    assert accuracy.main([*words, "--json", str(told)]) == 0
    for row in json.loads(told.read_text())["rows"]:
        for figures in (row["test"]["fp32"], row["test"]["int8"], row["tune"]["fp32"]):
            assert 0 <= figures["aupro"]["mean"] <= 1
