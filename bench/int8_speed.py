"""`python -m ndp_edge.bench.int8_speed`: what INT8 gains over FP32 in OpenVINO on this CPU.

Both engines (and, with --nncf, NNCF's own quantisation of OpenVINO's graph as a yardstick)
take turns on one image in one process, so that a change of the machine's speed hits all alike.
The ratio is the median of the pairwise ratios; the share of convolution time that ran in int8
comes from the executed graph's counters. Weights do not matter for speed: presets are fresh
nets (which needs torch), calibrated on noise.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ndp_edge.bench.contenders import noise
from ndp_edge.calib.calibrate import calibrate
from ndp_edge.checkpoint import Checkpoint
from ndp_edge.console import add_json_option, emit_json, info, run_verb, table, text_stream
from ndp_edge.doctor import isa
from ndp_edge.engines import open_engine
from ndp_edge.engines.executed import executed_layers, int8_share
from ndp_edge.errors import InputError, MachineError
from ndp_edge.export.graph import build_graph
from ndp_edge.export.inline import inline
from ndp_edge.model.config import PRESETS, preset
from ndp_edge.ov_core import cpu_request, shared_core

Images = NDArray[np.uint8]


def parser() -> argparse.ArgumentParser:
    """Presets, number of runs, the yardstick."""
    p = argparse.ArgumentParser(prog="python -m ndp_edge.bench.int8_speed", description=__doc__)
    p.add_argument("--preset", action="append", choices=PRESETS, help="repeat it; default: nano")
    p.add_argument("--runs", type=int, default=15, help="timed images per engine")
    p.add_argument("--threads", type=int, help="default: OpenVINO's choice")
    p.add_argument("--nncf", action="store_true", help="NNCF too (pip install nncf)")
    add_json_option(p)
    return p


def fresh_onnx(name: str, out: Path) -> Path:
    """The exported ONNX of a fresh net. Needs torch for its weights."""
    try:
        from ndp_edge.model.network import NDPNet
    except ImportError as error:
        raise MachineError('fresh weights need torch: pip install "ndp-edge[train]"') from error
    net = NDPNet(preset(name))
    weights = {k: v.numpy() for k, v in net.state_dict().items()}
    out.write_bytes(build_graph(Checkpoint(net.config, weights)).SerializeToString())
    return out


def yardstick(fp32: Path, images: Images, threads: int | None) -> Callable[[], None]:
    """One inference of NNCF's post-training quantisation of OpenVINO's own graph."""
    try:
        import nncf
    except ImportError as error:
        raise MachineError("--nncf needs NNCF: pip install nncf") from error
    model = shared_core().read_model(inline(onnx.load(fp32)).SerializeToString())
    model.reshape([1, *images.shape[1:]])
    data = nncf.Dataset(list(images), lambda image: image[None])
    quantised = nncf.quantize(model, data, subset_size=len(images))
    request = cpu_request(quantised, threads)
    return lambda: request.infer([images[:1]])


def interleave(contenders: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Milliseconds per run, the contenders taking turns; one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(runs + 1):
        for name, work in contenders.items():
            began = time.perf_counter()
            work()
            if run:
                times[name].append(1e3 * (time.perf_counter() - began))
    return times


def measure(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures of one preset."""
    info(f"{name}: exporting, calibrating, timing {args.runs} rounds")
    config = preset(name)
    images = noise(4, config.image_size)
    fp32, int8 = fresh_onnx(name, folder / f"{name}.onnx"), folder / f"{name}.int8.onnx"
    calibrate(fp32, images, int8)
    with (
        open_engine("openvino", fp32, precision="fp32", threads=args.threads) as wide,
        open_engine("openvino", int8, precision="int8", threads=args.threads) as narrow,
    ):
        contenders: dict[str, Callable[[], object]] = {
            "fp32": lambda: wide.infer(images[:1]),
            "int8": lambda: narrow.infer(images[:1]),
        }
        if args.nncf:
            contenders["nncf"] = yardstick(fp32, images, args.threads)
        times = interleave(contenders, args.runs)
        described = narrow.describe()
    layers = executed_layers(int8, images[:1], precision="int8", threads=args.threads)
    return {
        "preset": name,
        "device": described["device"],
        "versions": described["versions"],
        "runs": args.runs,
        "ms_p50": {k: round(statistics.median(v), 2) for k, v in times.items()},
        "speed_over_fp32": {k: ratio(times, k) for k in times if k != "fp32"},
        "int8_share_of_convolution_time": round(int8_share(layers), 4),
    }


def ratio(times: dict[str, list[float]], name: str) -> dict[str, float]:
    """Median and quartiles of FP32's time over another's, round by round."""
    pairs = [a / b for a, b in zip(times["fp32"], times[name], strict=True)]
    low, middle, high = (float(q) for q in np.percentile(pairs, [25, 50, 75]))
    return {"median": round(middle, 3), "q25": round(low, 3), "q75": round(high, 3)}


def run(args: argparse.Namespace) -> int:
    """Measure every preset asked for, print a table, write the JSON."""
    if args.runs < 3:
        raise InputError(f"--runs {args.runs}: at least 3, for quartiles that mean something")
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(name, args, Path(folder)) for name in args.preset or ["nano"]]
    rows: list[list[object]] = [["preset", "FP32 ms", "INT8 ms", "INT8 x", "NNCF x", "int8 share"]]
    for f in found:
        nncf = f["speed_over_fp32"].get("nncf", {}).get("median", "not measured")
        share = f"{100 * f['int8_share_of_convolution_time']:.1f} %"
        ms, gain = f["ms_p50"], f["speed_over_fp32"]["int8"]["median"]
        rows.append([f["preset"], ms["fp32"], ms["int8"], gain, nncf, share])
    print(table(rows), file=text_stream(args.json))
    told = {"date": datetime.date.today().isoformat(), "isa": isa()}
    emit_json(args.json, told | {"results": found})
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    args = parser().parse_args(argv)
    return run_verb(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
