"""`python -m ndp_edge.export`: a training run to a checked ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ndp_edge.console import add_json_option, emit_json, info, run_verb, table, text_stream

CHECK_IMAGES = 4
"""Real pictures compared with torch."""


def main(argv: list[str] | None = None) -> int:
    """Exit code 0: written and equal to torch; 1: not equal; 2: bad input; 3: no torch."""
    parser = argparse.ArgumentParser(prog="python -m ndp_edge.export", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="training run, safetensors")
    parser.add_argument("--out", type=Path, required=True, help="the ONNX file to write")
    parser.add_argument("--data", type=Path, help="dataset whose good pictures join the check")
    add_json_option(parser)
    arguments = parser.parse_args(argv)
    return run_verb(lambda: _export(arguments))


def _export(arguments: argparse.Namespace) -> None:
    from ndp_edge.checkpoint import load  # --help need not pay for it
    from ndp_edge.export.exporter import export_onnx  # loads onnx

    images = None
    if arguments.data is not None:
        from ndp_edge.data.folder import load_images, open_dataset  # as above

        size = load(arguments.checkpoint).config.image_size
        images = load_images(open_dataset(arguments.data).train[:CHECK_IMAGES], size)
    info(f"exporting {arguments.checkpoint} and comparing it with torch")
    report = export_onnx(arguments.checkpoint, arguments.out, images=images)
    rows: list[tuple[str, object]] = [("file", report["file"]), ("bytes", report["bytes"])]
    for engine in ("onnxruntime", "openvino"):
        for name, error in (report["check"][engine] or {"": "not installed"}).items():
            shown = f"{error:.1e}" if isinstance(error, float) else error
            rows.append((f"{engine} {name}".strip(), shown))
    print(table(rows), file=text_stream(arguments.json))
    emit_json(arguments.json, report)


if __name__ == "__main__":
    raise SystemExit(main())
