"""What `bench.accuracy` is to run: a plan file as a list of cells, one per training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ndp_edge.errors import InputError

ABLATE = "--ablate"
"""The option of `bench.ablated`: what a net lacks."""

KEYS = {"about", "common", "surfaces", "presets", "recipes", "seeds"}


@dataclass(frozen=True)
class Cell:
    """One training and what is measured of it.

    Attributes:
        surface, preset, recipe, seed: its place in the plan.
        data: folder of photographs; None is the built-in surface.
        options: of `train`, without --data, --out and --resume; with --ablate of
            `bench.ablated`.
        told: the same with "{data}" and "{out}" where the folders of the real surfaces and of the
            cells are named: a table may be made on one machine and read on another.
    """

    surface: str
    preset: str
    recipe: str
    seed: int
    data: Path | None
    options: tuple[str, ...]
    told: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        words = f"{self.surface} {self.preset} {self.recipe} {self.seed}"
        return "-".join("".join(c if c.isalnum() else " " for c in words).split())

    def where(self) -> list[str]:
        """--data, where it has one."""
        return [] if self.data is None else ["--data", str(self.data)]

    def device(self) -> list[str]:
        """--device and --threads, where it has them."""
        told = ((name, self.option(name)) for name in ("--device", "--threads"))
        return [word for name, value in told if value is not None for word in (name, value)]

    def option(self, name: str) -> str | None:
        """What follows an option of one value, the last time it is given; None without it."""
        at = [i for i, word in enumerate(self.options[:-1]) if word == name]
        return self.options[at[-1] + 1] if at else None


def read_plan(path: Path, root: Path | None, out: Path) -> list[Cell]:
    """The cells of a plan, seed by seed, so that a run cut short has each recipe once.

    A plan is JSON: `common` options of every training; `surfaces`, name -> {data: folder below
    `root` (none: the built-in surface), options}; `presets` and `recipes`, name -> options;
    `seeds`. Later options win: surface, preset, recipe. In an option "{data}" stands for `root`,
    "{out}" for `out` and "{seed}" for the cell's seed: a teacher may be a cell of another plan.

    Args:
        path: the plan.
        root: the folder of the real surfaces, where there is one.
        out: the folder that holds a folder per cell.

    Raises:
        InputError: it cannot be read, is no plan, or needs a folder that is not there.
    """
    try:
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"plan {path}: {error}") from error
    if not isinstance(plan, dict) or set(plan) - KEYS or not KEYS - {"about"} <= set(plan):
        raise InputError(f"plan {path}: wanted the keys {', '.join(sorted(KEYS))}")
    cells = []
    order = product(plan["seeds"], plan["surfaces"].items(), plan["presets"], plan["recipes"])
    for seed, (surface, told), preset, recipe in order:
        options = [
            *plan["common"],
            *told.get("options", ()),
            *plan["presets"][preset],
            *plan["recipes"][recipe],
        ]
        if root is None and ("data" in told or any("{data}" in word for word in options)):
            raise InputError(f"{surface} needs --data-root, the folder that holds it")
        data = root / told["data"] if root is not None and "data" in told else None
        if data is not None and not data.is_dir():
            raise InputError(f"{surface}: no folder {data}")
        told_options = (str(word).replace("{seed}", str(seed)) for word in options)
        asked = (*told_options, "--preset", preset, "--seed", str(seed))
        words = tuple(w.replace("{data}", str(root)).replace("{out}", str(out)) for w in asked)
        cells.append(Cell(surface, preset, recipe, int(seed), data, words, asked))
    if len({cell.name for cell in cells}) != len(cells):
        raise InputError(f"plan {path}: two of its cells would share a folder; rename a recipe")
    return cells
