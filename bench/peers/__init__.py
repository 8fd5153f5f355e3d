"""Other papers' nets beside ours: their latency, and DRAEM's accuracy where it was trained here.

Written from the papers. No published weights can be had where these figures were made, so that
all have random ones, but for a DRAEM that `peers.draem_train` trained for a stated time; an
untrained net has no accuracy to show. torch is imported when they are opened.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ndp_edge.bench.torch_side import Infer
from ndp_edge.calib.gate import AREAS
from ndp_edge.errors import InputError, MachineError

SIZE = 256

CALLS = 1
"""Timed calls of a peer in each round, at most: some take seconds."""

DRAEM_KIND = "ndp-edge-draem-1"
DRAEM_REPORT, DRAEM_WEIGHTS = "draem.json", "draem.safetensors"

NOTE = (
    "stfpm, efficientad-s, patchcore: architectures from their papers with random weights, latency "
    "only; patchcore with a memory bank of 10 % of the patches of 260 pictures; peers are timed "
    f"{CALLS} call a round"
)
UNTRAINED = "draem: its paper's architecture with random weights, latency only (--draem RUN)"


def open_peers(
    size: int, threads: int | None, draem: Path | None = None
) -> dict[str, tuple[Infer, dict[str, Any]]]:
    """Every peer in torch eager and, on a machine with OpenVINO, in OpenVINO FP32.

    Args:
        size: side of the square frames.
        threads: of a CPU; None leaves it to the backend.
        draem: what `peers.draem_train` wrote; None times random weights.

    Returns:
        "draem/torch-fp32" and so on -> its inference, uint8 [N, size, size, 3] to float32
        [N, size, size], and what distinguishes its figures.

    Raises:
        InputError: another size than the nets are made for, or weights that are none of DRAEM's.
        MachineError: there is no torch.
    """
    if size != SIZE:
        raise InputError(f"--peers: their nets take {SIZE} px, this one {size}")
    try:
        from ndp_edge.bench.peers.draem import Draem, load_draem
        from ndp_edge.bench.peers.efficientad import EfficientAdS
        from ndp_edge.bench.peers.opened import open_peer
        from ndp_edge.bench.peers.patchcore import PatchCore
        from ndp_edge.bench.peers.stfpm import Stfpm
    except ImportError as error:
        raise MachineError('--peers needs torch: pip install "ndp-edge[train]"') from error
    trained = load_draem(draem / DRAEM_WEIGHTS) if draem else Draem()
    nets = {
        "draem": trained,
        "stfpm": Stfpm(),
        "efficientad-s": EfficientAdS(),
        "patchcore": PatchCore(),
    }
    found: dict[str, tuple[Infer, dict[str, Any]]] = {}
    for name, net in nets.items():
        found |= open_peer(name, net, size, threads)
    return found


def read_draem(folder: Path, pictures: str | None) -> dict[str, Any]:
    """What `peers.draem_train` told of a run.

    Args:
        pictures: the digest of the test pictures beside whose figures DRAEM's will stand.

    Raises:
        InputError: no such run, not one of it, or DRAEM was judged on other pictures.
    """
    path = folder / DRAEM_REPORT
    try:
        found = json.loads(path.read_text("utf-8"))
        kind, figures = (
            found["kind"],
            {
                # What the test pictures cannot tell is null there.
                k: float(v)
                for k, v in found["metrics"].items()
                if v is not None
            },
        )
        training = found["training"]
        told = (training["minutes"], training["threads"], training["steps"], found["pictures"])
    except OSError as error:
        raise InputError(
            f"--draem {folder}: no {DRAEM_REPORT} there; python -m "
            "ndp_edge.bench.peers.draem_train --out makes one"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error!r}); train again") from error
    if kind != DRAEM_KIND or not all(told) or not all(0 <= v <= 1 for v in figures.values()):
        raise InputError(f"{path} is not a report of peers.draem_train ({DRAEM_KIND})")
    if found["pictures"] != pictures:
        raise InputError(
            f"{path}: DRAEM was judged on other pictures than the bundle, whose accuracy it "
            "would stand beside; train it with the bundle's --data"
        )
    result: dict[str, Any] = found
    return result


def add_accuracy(report: dict[str, Any], draem: dict[str, Any] | None) -> None:
    """Puts "accuracy" into the rows of a run whose net's accuracy on the test pictures is known.

    Of ours where the bundle's build measured that backend and precision, of DRAEM from `draem`
    (`read_draem`); an untrained net has none.
    """
    ours = report["accuracy"] or {}
    for row in report["rows"]:
        peer = row["name"].rpartition("/")[0]
        if peer == "draem" and draem is not None:
            row["accuracy"] = draem["metrics"]
        elif not peer and row["backend"] == ours.get("backend"):
            found = ours["metrics"].get(row["precision"], {})
            row["accuracy"] = {key: found.get(key) for key in AREAS}


def draem_note(told: dict[str, Any]) -> str:
    """What a reader must know of DRAEM's accuracy, in a sentence."""
    training = told["training"]
    return (
        f"draem: trained here for {training['minutes']:g} minutes on {training['threads']} "
        f"CPU thread(s), {training['steps']} steps of {training['batch_size']} crops; the accuracy "
        "of that budget, not of the method (its authors train 700 epochs)"
    )
