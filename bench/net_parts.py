"""Where the time goes inside the net: the executed layers' counters, by part of the paper."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ndp_edge.bench.rounds import Images
from ndp_edge.types import Layer

PARTS = ("encoder", "rbam", "decoder", "reencoder", "msdsm", "combine")
"""First words of the exported graph's names; rbam3 and msdsm1 count as rbam and msdsm."""

OTHER = "input and output"


def parts_ms(layers: Iterable[Layer]) -> dict[str, float]:
    """Milliseconds by part, the parts in the order in which they run."""
    found = dict.fromkeys((*PARTS, OTHER), 0.0)
    for layer in layers:
        word = re.match(r"[a-z]*", layer.name)
        name = word[0] if word else ""
        found[name if name in PARTS else OTHER] += layer.ms
    return {name: round(ms, 3) for name, ms in found.items()}


def openvino_parts(
    models: dict[str, Path], image: Images, threads: int | None
) -> dict[str, dict[str, float]]:
    """Precision -> part -> milliseconds in OpenVINO at batch 1, medians of five calls.

    The counters cost time themselves and the engines do not take turns here: read the shares,
    not the sums.

    Args:
        models: precision -> ONNX file.
        image: uint8 [1, S, S, 3].
        threads: None leaves them to OpenVINO.

    Raises:
        MachineError: OpenVINO is missing.
    """
    from ndp_edge.engines.executed import executed_layers

    return {
        precision: parts_ms(executed_layers(model, image, precision=precision, threads=threads))
        for precision, model in models.items()
    }
