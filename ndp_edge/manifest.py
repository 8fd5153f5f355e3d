"""manifest.json: schema 1, its one spelling, its digest, and paths that cannot lead out."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from ndp_edge.errors import InputError
from ndp_edge.files import file_hash

SCHEMA = 1
MANIFEST = "manifest.json"
MANIFEST_LIMIT = 16 << 20
"""Bytes; a manifest is some tens of kilobytes, so more is no manifest."""

_KEYS: dict[str, type] = {
    "schema": int,
    "package": dict,
    "created": str,
    "config": dict,
    "input": dict,
    "output": dict,
    "files": dict,
    "engines": list,
    "default": dict,
    "threshold": dict,
    "calibration": dict,
    "splits": dict,
    "training": dict,
    "metrics": dict,
    "latency_ms": dict,
    "gate": dict,
    "golden": dict,
    "digest": str,
}


def seal(content: dict[str, Any]) -> str:
    """The text of a manifest with these contents; adds "schema" and "digest".

    Raises:
        InputError: a key is missing, unknown, of the wrong type or not finite.
    """
    content = {**content, "schema": SCHEMA}
    try:
        content["digest"] = _digest(content)
    except ValueError as error:
        raise InputError(f"the manifest holds a value that is not finite: {error}") from error
    check_types(content, Path(MANIFEST))
    return _canonical(content)


def safe_name(name: str) -> PurePosixPath:
    """`name` as a relative path that cannot leave the bundle.

    Raises:
        InputError: absolute, empty, with "..", backslashes or NUL, or not in normal form.
    """
    path = PurePosixPath(name)
    bad = not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name
    if bad or path.as_posix() != name or name == ".":
        raise InputError(f"the manifest's path {name!r} leads out of the bundle; do not use it")
    return path


def read_manifest(root: Path) -> tuple[dict[str, Any], str]:
    """manifest.json of `root`, checked against its own digest, and its sha256.

    Raises:
        InputError: unreadable, another schema, or changed after it was written.
    """
    file = root / MANIFEST
    if file.is_symlink() or file.stat().st_size > MANIFEST_LIMIT:
        raise InputError(f"{file} is a link or too large to be a manifest; build the bundle again")
    data = file.read_bytes()
    try:
        content = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is damaged ({error}); build the bundle again") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if type(schema) is not int or schema != SCHEMA:
        raise InputError(
            f"{file} has schema {schema!r}, this version reads {SCHEMA}; build the bundle again"
        )
    check_types(content, file)
    if not _is_untouched(content, data):
        raise InputError(f"{file} was changed after the build; build the bundle again")
    return content, hashlib.sha256(data).hexdigest()


def check_types(content: dict[str, Any], where: Path) -> None:
    """See that a manifest has schema 1's keys, no others, with values of the right types.

    Raises:
        InputError: it has not; the line names the key.
    """
    wrong = [k for k, kind in _KEYS.items() if not isinstance(content.get(k), kind)]
    wrong += [k for k in content if k not in _KEYS]
    if wrong:
        raise InputError(
            f"{where}: {wrong[0]!r} does not fit schema {SCHEMA}; build the bundle again"
        )
    checks: list[tuple[str, bool]] = [
        ("threshold", _is_finite(content["threshold"].get("value"))),
        ("default", _texts(content["default"], "backend", "precision")),
        ("files", all(_is_file_entry(e) for e in content["files"].values())),
        ("engines", all(_texts(e, "backend", "precision", "file") for e in content["engines"])),
        ("golden", _texts(content["golden"], "file")),
    ]
    for key, good in checks:
        if not good:
            raise InputError(f"{where}: {key!r} is malformed; build the bundle again")
    _check_engines(content)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _is_untouched(content: dict[str, Any], data: bytes) -> bool:
    try:
        return bool(content["digest"] == _digest(content)) and _canonical(content).encode() == data
    except ValueError:  # 1e999 is read as infinity, which has no spelling
        return False


def _is_finite(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


def _texts(entry: object, *keys: str) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(k), str) for k in keys)


def _is_file_entry(entry: object) -> bool:
    return isinstance(entry, dict) and _texts(entry, "sha256") and type(entry.get("size")) is int


def _check_engines(manifest: dict[str, Any]) -> None:
    named = [e["file"] for e in manifest["engines"]] + [manifest["golden"]["file"]]
    for name in named:
        if name not in manifest["files"]:
            raise InputError(f"the manifest names {name!r} without a hash; build the bundle again")
    pairs = [(e["backend"], e["precision"]) for e in manifest["engines"]]
    # One engine a card: those of CPU backends name none.
    each = {(*pair, e.get("sm")) for pair, e in zip(pairs, manifest["engines"], strict=True)}
    default = manifest["default"]["backend"], manifest["default"]["precision"]
    if default not in pairs or len(each) != len(pairs):
        raise InputError("the manifest's engines do not fit together; build the bundle again")


def check_file(root: Path, name: str, entry: dict[str, Any], hashes: bool) -> None:
    """See that one listed file is there, plain, and (size always, hash if asked) unchanged.

    Raises:
        InputError: it is not; the line names it.
    """
    path = root
    for part in safe_name(name).parts:
        path = path / part
        if path.is_symlink():
            raise InputError(f"{path} is a link; a bundle holds plain files: copy it in full")
    if not path.is_file():
        raise InputError(f"{path} is missing; copy the bundle again or build it again")
    size = path.stat().st_size
    if size != entry["size"] or (hashes and file_hash(path) != entry["sha256"]):
        raise InputError(f"{path} was changed after the build; copy or build the bundle again")


def _canonical(content: dict[str, Any]) -> str:
    """The one spelling of a manifest; any other bytes mean that somebody changed it."""
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _digest(content: dict[str, Any]) -> str:
    rest = {k: v for k, v in content.items() if k != "digest"}
    return hashlib.sha256(_canonical(rest).encode()).hexdigest()
