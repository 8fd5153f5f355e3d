"""`python -m ndp_edge.verify BUNDLE`: does this bundle still do, here, what it did when built?

Hashes and paths, the manifest against itself, the ONNX files against the standard, and the
golden images through every engine that this machine has.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ndp_edge
from ndp_edge.bundle import Bundle
from ndp_edge.console import add_json_option, emit_json, info, run_verb, text_stream
from ndp_edge.engines import available, open_engine
from ndp_edge.errors import GateError, MachineError, NdpError
from ndp_edge.golden import Golden, engine_key, read_golden, replay
from ndp_edge.verify_plans import describe, golden_key, is_plan, unfit, why_not_run

PASSED, FAILED, WARNING, SKIPPED = "passed", "FAILED", "warning", "not checked"
_FOREIGN_OK = ("", "ai.onnx", "ndp_edge")


@dataclass(frozen=True)
class Check:
    """One line of the table: what was checked, how it went, and the figures behind it."""

    name: str
    result: str
    detail: str


def verify(path: Path) -> tuple[Bundle, list[Check]]:
    """Check a bundle whole.

    Raises:
        InputError: it cannot be trusted at all: damaged, changed, or of another schema.
    """
    bundle = Bundle.open(path)
    kept = read_golden(bundle.file(bundle.manifest["golden"]["file"]))
    files = bundle.manifest["files"]
    size = sum(entry["size"] for entry in files.values()) / 1e6
    checks = [Check("files", PASSED, f"{len(files)} hashes, {size:.1f} MB")]
    checks += check_manifest(bundle, kept)
    checks += check_versions(bundle)
    checks += check_models(bundle)
    checks += check_plans(bundle)
    checks += replay_engines(bundle, kept)
    return bundle, checks


def check_manifest(bundle: Bundle, kept: Golden) -> Iterator[Check]:
    """The manifest's parts against each other."""
    m = bundle.manifest
    backend, precision = bundle.default
    size = bundle.config.image_size
    wrong = []
    if m["threshold"].get("precision") != precision:
        wrong.append("the threshold belongs to another precision than the default engine")
    if precision != "fp32" and m["gate"].get("passed") is not True:
        wrong.append(f"the default engine is {precision}, but the gate did not pass it")
    if precision not in m["metrics"]:
        wrong.append(f"no metrics for {precision}")
    if kept.images.shape[1:3] != (size, size):
        wrong.append(f"golden images of {kept.images.shape[1:3]} pixels for a net of {size}")
    for entry in m["engines"]:
        key = golden_key(entry)
        if key not in kept.maps or not _is_tolerance(m["golden"].get("tolerances", {}).get(key)):
            wrong.append(f"no golden maps or tolerance for {key}")
    told = f"default {backend} {precision}, threshold {bundle.threshold:.4f}"
    yield Check("manifest", FAILED if wrong else PASSED, "; ".join(wrong) or told)


def check_versions(bundle: Bundle) -> Iterator[Check]:
    """Warns where the package or a backend is not the one the bundle was built with."""
    m = bundle.manifest
    here = available()
    pairs: list[tuple[str, str | None, str | None]] = [
        ("ndp-edge", m["package"].get("version"), ndp_edge.__version__)
    ]
    for backend in bundle.backends:
        built = next(e.get("versions", {}) for e in m["engines"] if e["backend"] == backend)
        pairs.append((backend, built.get(backend), here.get(backend)))
    for name, built, now in pairs:
        if built == now:
            yield Check(f"version of {name}", PASSED, f"{now}")
        else:
            told = f"built with {built}, here {now or 'not installed'}"
            yield Check(f"version of {name}", WARNING, told)


def check_models(bundle: Bundle) -> Iterator[Check]:
    """Every ONNX file: legal by the standard, ours, and of the manifest's configuration."""
    import onnx

    from ndp_edge.export.exporter import read_config

    for name in sorted(n for n in bundle.manifest["files"] if n.endswith(".onnx")):
        try:
            model = onnx.load(bundle.file(name))
            onnx.checker.check_model(model, full_check=True)
            foreign = {o.domain for o in model.opset_import} - set(_FOREIGN_OK)
            same = read_config(model)[0] == bundle.config
        except (
            NdpError,
            onnx.checker.ValidationError,
            onnx.shape_inference.InferenceError,
        ) as error:
            yield Check(name, FAILED, " ".join(str(error).split())[:200])
            continue
        wrong = [f"operators of {', '.join(sorted(foreign))}"] if foreign else []
        wrong += [] if same else ["another configuration than the manifest's"]
        told = f"legal ONNX, opset {max(o.version for o in model.opset_import)}"
        yield Check(name, FAILED if wrong else PASSED, "; ".join(wrong) or told)


def check_plans(bundle: Bundle) -> Iterator[Check]:
    """Every plan for a card against its sidecar, the manifest and the ONNX."""
    for entry in filter(is_plan, bundle.manifest["engines"]):
        wrong = unfit(bundle, entry)
        told = "; ".join(wrong) if wrong else describe(bundle, entry)
        yield Check(entry["file"], FAILED if wrong else PASSED, told)


def replay_engines(bundle: Bundle, kept: Golden) -> Iterator[Check]:
    """The golden images through every engine of the bundle; those not installed are named.

    Where another CPU backend is installed, the FP32 graph also goes through that one: two
    independent programs that agree vouch for the file better than one does.
    """
    here = available()
    for entry in bundle.manifest["engines"]:
        backend, precision = entry["backend"], entry["precision"]
        card = f" {entry['sm']}" if is_plan(entry) else ""
        name = f"golden, {backend} {precision}{card}"
        why_not = why_not_run(entry) if card else None
        if here.get(backend) is None:
            why_not = f"{backend} is not installed here"
        if why_not is not None:
            yield Check(name, SKIPPED, why_not)
            continue
        model = bundle.file(entry["file"])
        yield _replay(bundle, kept, name, (backend, precision, model), golden_key(entry))
    graph = next((e for e in bundle.manifest["engines"] if e["precision"] == "fp32"), None)
    for other in ("openvino", "onnxruntime"):
        if graph is None or other in bundle.backends or here.get(other) is None:
            continue
        key, model = engine_key(graph["backend"], "fp32"), bundle.file("model.onnx")
        yield _replay(bundle, kept, f"cross-check, {other} fp32", (other, "fp32", model), key)


def _replay(
    bundle: Bundle, kept: Golden, name: str, engine: tuple[str, str, Path], key: str
) -> Check:
    backend, precision, model = engine
    allowed = bundle.manifest["golden"].get("tolerances", {}).get(key)
    if not _is_tolerance(allowed):
        return Check(name, FAILED, f"the manifest has no tolerance for {key}")
    info(f"replaying {len(kept.images)} golden images: {backend} {precision}")
    try:
        with open_engine(backend, model, precision=precision) as e:
            found = replay(e, kept, key, allowed, bundle.threshold)
    except Exception as error:  # a backend that cannot read the file raises what it likes
        return Check(name, FAILED, " ".join(str(error).split())[:200])
    told = (
        f"max {found.max_abs:.1e} (allowed {allowed['max_abs']:.1e}), mean {found.mean_abs:.1e} "
        f"({allowed['mean_abs']:.1e}), verdicts changed {found.changed} of {found.n}"
    )
    return Check(name, PASSED if found.passed else FAILED, told)


def _is_tolerance(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return all(type(value.get(k)) is float and value[k] > 0 for k in ("max_abs", "mean_abs"))


def run(args: argparse.Namespace) -> int:
    """Verify and tell.

    Raises:
        GateError: a check failed.
        MachineError: none of the bundle's engines can run here.
    """
    bundle, checks = verify(args.bundle)
    width = max(len(c.name) for c in checks)
    for c in checks:
        print(f"{c.name:{width}}  {c.result:11}  {c.detail}", file=text_stream(args.json))
    emit_json(args.json, {"bundle": bundle.hash, "checks": [asdict(c) for c in checks]})
    failed = [c for c in checks if c.result == FAILED]
    if failed:
        raise GateError(f"{failed[0].name}: {failed[0].detail}")
    if not any(c.name.startswith("golden") and c.result == PASSED for c in checks):
        # Opening the default engine says which command installs it.
        backend, precision = bundle.default
        open_engine(backend, bundle.engine_path(backend, precision), precision=precision)
        raise MachineError(f"none of the bundle's engines can run here: {bundle.backends}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point: exit 0 sound, 1 answers differ, 2 damaged, 3 nothing to run it with."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.verify", description=__doc__)
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    add_json_option(p)
    args = p.parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
