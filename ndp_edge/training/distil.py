"""`train --teacher`: phase 2 with one term more, the maps of a larger net trained before.

The masks say where a defect was pasted; the teacher says how well each pixel of it can be seen.
Encoder, decoder and RBAM learn as ever: nothing but MSDSM's logits is compared, so that nets of
any two presets are teacher and student.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ndp_edge import losses
from ndp_edge.data.splits import Splits
from ndp_edge.errors import InputError
from ndp_edge.model.config import NdpConfig
from ndp_edge.model.load import load_net
from ndp_edge.model.network import NDPNet, Output
from ndp_edge.training.command import TEACHER_WEIGHT
from ndp_edge.training.loop import Run, Trainer
from ndp_edge.training.origin import read_origin, refuse_other_data
from ndp_edge.training.phases import Parts


@dataclass
class Teacher:
    """A net that another is to learn from.

    Attributes:
        net: in eval mode, on the CPU.
        record: what the pupil's checkpoint says of it: from, from_sha256, preset, weight.
    """

    net: NDPNet
    record: dict[str, Any]


def read_teacher(
    args: argparse.Namespace, config: NdpConfig, splits: Splits, root: Path
) -> Teacher | None:
    """The finished run that is to teach a net of `config` on these photographs; None without one.

    Raises:
        InputError: no finished checkpoint there, weights that are not finite or not the net's,
            another image size, or another train split: what the teacher saw, its pupil knows,
            and a build must not judge the pupil by it. A weight that is not positive, or
            without a teacher.
    """
    path, weight = args.teacher, args.teacher_weight
    if path is None:
        if weight != TEACHER_WEIGHT:
            raise InputError("--teacher-weight needs a --teacher")
        return None
    if not 0 < weight < math.inf:
        raise InputError(f"--teacher-weight {weight} must be positive and finite")
    found = read_origin(path)
    if found.config.image_size != config.image_size:
        raise InputError(
            f"--teacher {path} looks at pictures of {found.config.image_size} pixels, not of "
            f"--image-size {config.image_size}"
        )
    refuse_other_data(splits, found.training, root)
    record = {
        "from": path.name,
        "from_sha256": found.training["sha256"],
        "preset": found.config.preset,
        "weight": weight,
    }
    return Teacher(load_net(found).requires_grad_(False), record)


class Distiller(Trainer):
    """Trains the paper's two phases, the second with the teacher's maps beside the masks.

    Args:
        run: as for `Trainer`; its record gets "teacher", and its state is no other teacher's.
        resume: go on from the state in the run's folder, where there is one.
        teacher: of `read_teacher`.
    """

    def __init__(self, run: Run, *, resume: bool, teacher: Teacher) -> None:
        told = teacher.record
        own = dataclasses.replace(
            run,
            record=run.record | {"teacher": told},
            identity=f"{run.identity} teacher {told['from_sha256']} {told['weight']}",
        )
        super().__init__(own, resume=resume)
        self.weight = float(told["weight"])
        net = teacher.net.to(run.device)
        self.teacher = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _second(self, good: Tensor, bad: Tensor, mask: Tensor) -> tuple[Parts, Output]:
        parts, out = super()._second(good, bad, mask)
        with torch.no_grad():
            target = self.teacher.analyse(bad).logits
        parts["distil"] = self.weight * losses.agreement(
            [x.float() for x in out.logits], [x.float() for x in target]
        )
        return parts, out
