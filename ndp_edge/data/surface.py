"""The built-in surface: a data set that every machine can draw, so that nothing is downloaded.

    python -m ndp_edge.data.surface --kind woven --out DIR

Procedural cloth, brushed metal or stone in MVTec layout, with defects made by another process than
the training defects, and exact masks. Every picture has its own seed, so any one can be drawn
alone; see surface_textures for why two machines draw the same bytes.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ndp_edge.atomic import clean_stale, locked_sibling, put_in_place
from ndp_edge.console import info, run_verb
from ndp_edge.data import surface_defects, surface_textures
from ndp_edge.errors import InputError

KINDS = tuple(surface_textures.TEXTURES)
_DEFAULT = {"train": 400, "good": 60, "defects": 60, "size": 256, "seed": 0}
_TRAIN, _GOOD, _DEFECT = range(3)  # separate random streams: more training pictures change no test
_MARKER = "surface.json"
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def draw(
    kind: str, stream: int, index: int, *, size: int = 256, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None, str]:
    """Picture number index of a stream (0 train, 1 test good, 2 test defective).

    Returns uint8 [size, size, 3] RGB, its mask bool [size, size] (None when good) and the name of
    the defect ("good" when there is none). Defect kinds take turns.
    """
    if kind not in KINDS:
        raise InputError(f"no built-in surface {kind!r}; there are {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, KINDS.index(kind), stream, index])
    scene = surface_textures.TEXTURES[kind](rng, size)
    if stream != _DEFECT:
        return scene.photograph(scene.clean), None, "good"
    defects = surface_defects.kinds_for(kind)
    defect = defects[index % len(defects)]
    picture, mask = surface_defects.damage(rng, scene, defect, surface_defects.STRENGTHS[kind])
    return picture, mask, defect


def write_surface(
    kind: str,
    out: Path | str,
    *,
    train: int = 400,
    good: int = 60,
    defects: int = 60,
    size: int = 256,
    seed: int = 0,
) -> Path:
    """Draw a surface into the new folder out, in MVTec layout; whole or not at all.

    train, good, defects: numbers of pictures in train/good, test/good and test/<defect>. size in
    pixels, a side. Returns out. Raises InputError: an unknown kind, negative counts, a size below
    64, or an out that holds something already.
    """
    out = Path(out)
    if kind not in KINDS:
        raise InputError(f"no built-in surface {kind!r}; there are {', '.join(KINDS)}")
    if min(train, good, defects, seed) < 0 or size < 64:
        raise InputError(
            "a surface needs counts and a seed of at least 0 and a size of at least 64"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already; name a new folder or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    _fill(out, kind, (train, good, defects), size, seed)
    return out


def _fill(out: Path, kind: str, counts: tuple[int, int, int], size: int, seed: int) -> None:
    """Draw beside out, then put it in place, replacing what stood there."""
    clean_stale(out)
    temporary, lock = locked_sibling(out)
    try:
        _keep_heap()
        files = total = 0
        for name, data in _files(kind, counts, size, seed):
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            files, total = files + 1, total + len(data)
        facts = {"kind": kind, "size": size, "seed": seed, "files": files, "bytes": total}
        (temporary / _MARKER).write_text(json.dumps(facts, indent=1) + "\n")
        put_in_place(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def builtin_root(kind: str = "woven") -> Path:
    """The root of the default surface, drawn into the user's cache on first use.

    400 training, 60 good and 60 defective test pictures of 256x256 pixels. The cache is
    $NDP_EDGE_CACHE, or $XDG_CACHE_HOME/ndp-edge, or ~/.cache/ndp-edge; the folder's name carries a
    hash of the code that drew it, so that changed code never meets old pictures.

    Raises InputError where the cache cannot be written.
    """
    root = _cache() / f"surface-{kind}-{_version()}"
    if _complete(root):
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        # Replaces a root that a cache cleaner has thinned out. Two processes at once draw it
        # twice: the later one swaps in equal files, so the earlier one reads on undisturbed.
        _fill(
            root,
            kind,
            (_DEFAULT["train"], _DEFAULT["good"], _DEFAULT["defects"]),
            _DEFAULT["size"],
            _DEFAULT["seed"],
        )
    except OSError as error:
        if error.errno in _NOT_OURS:
            raise InputError(
                f"{root.parent}: cannot be written ({error.strerror}); set NDP_EDGE_CACHE to a "
                f"folder that can"
            ) from None
        raise
    return root


def _files(
    kind: str, counts: tuple[int, int, int], size: int, seed: int
) -> Iterator[tuple[str, bytes]]:
    for index in range(counts[_TRAIN]):
        yield (
            f"train/good/{index:03d}.png",
            _png(draw(kind, _TRAIN, index, size=size, seed=seed)[0]),
        )
    for index in range(counts[_GOOD]):
        yield f"test/good/{index:03d}.png", _png(draw(kind, _GOOD, index, size=size, seed=seed)[0])
    for index in range(counts[_DEFECT]):
        picture, mask, defect = draw(kind, _DEFECT, index, size=size, seed=seed)
        yield f"test/{defect}/{index:03d}.png", _png(picture)
        if mask is not None:
            marked = mask.astype(np.uint8) * np.uint8(255)
            yield f"ground_truth/{defect}/{index:03d}_mask.png", _png(marked)


def _png(array: NDArray[np.uint8]) -> bytes:
    """uint8 [H, W, 3] RGB or [H, W] as an uncompressed PNG.

    Stored, not deflated: compressors differ between zlib builds, and equal pictures must be equal
    files on every machine, because splits follow the files' hashes.
    """
    height, width = array.shape[:2]
    rows = array.reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    blocks = [raw[at : at + 65535] for at in range(0, len(raw), 65535)]
    stream = b"\x78\x01" + b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block
        for block in blocks
    )
    stream += struct.pack(">I", zlib.adler32(raw))
    colour = 2 if array.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))
        for tag, body in ((b"IHDR", header), (b"IDAT", stream), (b"IEND", b""))
    )


def _keep_heap() -> None:
    """Teach glibc's malloc to keep freed pages: it raises its trim threshold to twice the largest
    block freed so far. Otherwise every picture maps 14 MB anew, a third of the drawing time."""
    block = np.empty(30 << 20, np.uint8)
    del block


def _version() -> str:
    digest = hashlib.sha256(json.dumps(_DEFAULT).encode())
    for module in (surface_textures.__file__, surface_defects.__file__, __file__):
        digest.update(Path(module).read_bytes())
    return digest.hexdigest()[:12]


def _cache() -> Path:
    own = os.environ.get("NDP_EDGE_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(shared) if shared else Path.home() / ".cache") / "ndp-edge"
    except RuntimeError:
        raise InputError("no home folder is known; set NDP_EDGE_CACHE to a folder") from None


def _complete(root: Path) -> bool:
    """True when the files that the marker counted are there, with the bytes it counted."""
    try:
        facts = json.loads((root / _MARKER).read_text())
        sizes = [path.stat().st_size for path in root.glob("*/*/*.png")]
        return bool(len(sizes) == facts["files"] and sum(sizes) == facts["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ndp_edge.data.surface",
        description="Draw a built-in surface with exact defect masks, in MVTec layout.",
    )
    parser.add_argument("--kind", choices=KINDS, default="woven")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the pictures")
    for name, value in _DEFAULT.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    options = parser.parse_args(argv)

    def verb() -> None:
        start = time.perf_counter()
        counts = {name: getattr(options, name) for name in _DEFAULT}
        write_surface(options.kind, options.out, **counts)
        info(f"{options.out}: drawn in {time.perf_counter() - start:.1f} s")

    return run_verb(verb)


if __name__ == "__main__":
    raise SystemExit(main())
