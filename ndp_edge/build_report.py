"""What a build tells in files: report.json and report.html, the manifest."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import ndp_edge
from ndp_edge.build_inputs import Judged, Net
from ndp_edge.build_measure import Measured
from ndp_edge.build_trt import entry
from ndp_edge.build_work import Work
from ndp_edge.console import plain
from ndp_edge.data.splits import PARTS, Splits
from ndp_edge.doctor import isa
from ndp_edge.golden import engine_key
from ndp_edge.report import Evidence, Pictures, SamplePicture, write_report
from ndp_edge.report_calibration import calibration_keys
from ndp_edge.threshold import far_out, score_quantiles

FILES = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
ENGINE_KEYS = ("backend", "precision")
GOOD_SHOWN, BAD_SHOWN = 4, 8


def notes(net: Net, judged: Judged, rate: float, usual: float, asked: float | None) -> list[str]:
    """What the reader must know before trusting the figures."""
    told = []
    if asked is None and rate > usual:
        told.append(f"the good images carry a false-reject rate of {rate:.4f} at best, not {usual}")
    if judged.split == "threshold":
        told.append(
            "there is no test folder: INT8 was compared with FP32 on the threshold images, "
            "whose false rejects are low by construction"
        )
    if not judged.labels.any():
        told.append("no defective images: AUROC, AUPRO and misses are unknown")
    if "hashes" not in net.training:
        told.append("the net does not say which files it was trained on: a leak cannot be excluded")
    return told


def outlier_notes(measured: Measured, splits: Splits, emitted: str) -> list[str]:
    """Names the good pictures that hold the threshold up, where they are unlike the rest."""
    scores, threshold = measured.quiet[emitted], measured.thresholds[emitted].value
    unlike = far_out(scores)
    if not any(float(scores[i]) <= threshold for i in unlike):
        return []
    named = ", ".join(f"{splits.threshold[i].name} ({float(scores[i]):.3f})" for i in unlike[:5])
    return [
        f"the threshold rests on good pictures unlike the rest (median {np.median(scores):.3f}): "
        f"{named}; look at them: remove what is not good product and build again, or aim at a "
        "higher --target-false-reject"
    ]


def report(work: Work) -> dict[str, Any]:
    """report.json: the emitted engine's report keys on top, everything else beside them."""
    measured, net = work.measured, work.net
    shipped = work.emitted
    return {
        **measured.metrics[shipped],
        "title": f"{net.config.preset} on {work.data}: {work.runs_on} {shipped}",
        "created": _now(),
        "version": ndp_edge.__version__,
        "metrics": measured.metrics,
        "gate": work.gate,
        "choices": work.choices(),
        "frozen_metrics": measured.frozen,
        "threshold": asdict(measured.thresholds[shipped]) | {"precision": shipped},
        "splits": _splits(work),
        "judged": {"split": work.judged.split, "n": len(work.judged.samples)},
        **calibration_keys(work.calibration),
        "int8_convolution_share": work.int8_share(),
        "sensitivity": work.sensitivity,
        "fallback": work.fallback,
        "model": _model(net),
        "versions": measured.described[shipped].get("versions", {}),
        "isa": isa(),
        "engine_choice": work.why,
        "judged_on": work.judged_on,
        "engines": _engines(work),
        "batches": work.batches,
        "seconds": work.seconds,
        "notes": work.notes,
    }


def _engines(work: Work) -> list[dict[str, Any]]:
    """Each engine for a card, with every layer and what it runs in."""
    return [entry(built, work.judged_on) | {"layers": built.sidecar.layers} for built in work.built]


def manifest(work: Work, precisions: list[str]) -> dict[str, Any]:
    """Everything of schema 1 but what `BundleWriter.commit` adds."""
    measured, net, backend = work.measured, work.net, work.backend
    size = net.config.image_size
    keys = [engine_key(backend, p) for p in precisions]
    back = work.fallback.get("float") if work.emitted == "int8" else None
    content = {
        "package": {"name": "ndp-edge", "version": ndp_edge.__version__},
        "created": _now(),
        "config": asdict(net.config),
        "input": {
            "shape": ["N", size, size, 3],
            "dtype": "uint8",
            "colour": "RGB",
            "resize": "area, square pictures only",
        },
        "output": {"map": "float32 [N, H, W]", "postprocess": "median 5x5, maximum"},
        "engines": _manifest_engines(work, precisions),
        "default": {"backend": work.runs_on, "precision": work.emitted},
        "threshold": asdict(measured.thresholds[work.emitted])
        | {"precision": work.emitted}
        | {"score_quantiles": score_quantiles(measured.quiet[work.emitted])},
        "calibration": work.calibration | ({"float": back} if back else {}),
        "splits": _splits(work, hashes=True),
        "training": net.training,
        "metrics": {p: measured.metrics[p] for p in measured.metrics},
        "latency_ms": {p: measured.metrics[p]["latency_ms"] for p in measured.metrics},
        "gate": work.gate,
        "golden": {
            "file": "golden.npz",
            "n": len(measured.golden.images),
            "tolerances": {k: measured.tolerances[k] for k in keys},
        },
    }
    result: dict[str, Any] = plain(content)
    return result


def _manifest_engines(work: Work, precisions: list[str]) -> list[dict[str, Any]]:
    """The measured engines, and those for cards elsewhere behind them."""
    told: list[dict[str, Any]] = []
    plans = {b.sidecar.precision: entry(b, None) for b in work.built if not work.judged_on}
    for p in precisions:
        facts = {k: v for k, v in work.measured.described[p].items() if k not in ENGINE_KEYS}
        line = {"backend": work.backend, "precision": p, "file": FILES[p], "batch": "any"}
        told.append({**line, **plans.get(p, {}), **facts})
    return told + [entry(built, work.judged_on) for built in work.built if work.judged_on]


def write(work: Work, html_path: Path, json_path: Path) -> None:
    """report.html and report.json."""
    write_report(report(work), _pictures(work), html_path, json_path)


def _pictures(work: Work) -> Pictures:
    judged, measured = work.judged, work.measured
    shipped = work.emitted
    shown = measured.answers[shipped]
    threshold = measured.thresholds[shipped].value
    samples = [
        SamplePicture(
            judged.samples[i].name,
            judged.samples[i].kind,
            judged.images[i],
            judged.masks[i] if judged.labels[i] else None,
            shown.smoothed[i],
            float(shown.scores[i]),
            "reject" if float(shown.scores[i]) > threshold else "ok",
        )
        for i in _shown(judged)
    ]
    ordered = [p for p in measured.answers if p != shipped] + [shipped]
    evidence = {
        p: Evidence(
            measured.answers[p].scores,
            judged.labels,
            measured.answers[p].smoothed,
            judged.masks,
            measured.answers[p].ms,
        )
        for p in ordered
    }
    engines = {b.file: b.layers for b in work.built if b.sidecar.precision == shipped}
    return Pictures(samples, evidence, work.layers, engines)


def _shown(judged: Judged) -> list[int]:
    """A few good images, then defective ones of every kind in turn."""
    good = np.flatnonzero(judged.labels == 0)
    kinds: dict[str, list[int]] = {}
    for i in np.flatnonzero(judged.labels == 1).tolist():
        kinds.setdefault(judged.samples[i].kind, []).append(i)
    bad: list[int] = []
    while len(bad) < BAD_SHOWN and any(kinds.values()):
        bad += [members.pop(0) for members in kinds.values() if members]
    spread = np.linspace(0, len(good) - 1, min(GOOD_SHOWN, len(good))).round().astype(int)
    return [int(good[i]) for i in spread] + bad[:BAD_SHOWN]


def _splits(work: Work, *, hashes: bool = False) -> dict[str, Any]:
    """Size and digest of each split; with `hashes` also every file's, for `evaluate`'s check."""
    told: dict[str, Any] = {}
    for part in PARTS:
        names = [sample.name for sample in getattr(work.splits, part)]
        told[part] = {"n": len(names), "digest": work.splits.digest[part]}
        if hashes:
            told[part]["hashes"] = sorted({work.splits.hashes[name] for name in names})
    return told


def _model(net: Net) -> dict[str, Any]:
    flat = {
        "preset": net.config.preset,
        "image size": net.config.image_size,
        "source": net.source,
        **{k: v for k, v in net.training.items() if k not in ("hashes", "split_digest")},
    }
    return flat | ({"export check": net.check} if net.check else {})


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
