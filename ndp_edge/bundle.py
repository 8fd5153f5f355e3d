"""The bundle on disk: manifest, hashes, safe paths, one atomic rename (DESIGN section 5)."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ndp_edge.atomic import clean_stale, locked_sibling, put_in_place
from ndp_edge.errors import InputError
from ndp_edge.files import file_hash
from ndp_edge.manifest import (
    MANIFEST,
    check_file,
    read_manifest,
    safe_name,
    seal,
)
from ndp_edge.model.config import NdpConfig


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; everything in `manifest` has been checked for type and finiteness.

    Attributes:
        root: the directory, links resolved.
        manifest: as written by the build, schema 1.
        config: shape of the net.
        hash: sha256 of manifest.json, hex; it covers every file through their hashes.
    """

    root: Path
    manifest: dict[str, Any]
    config: NdpConfig
    hash: str

    @classmethod
    def open(cls, path: Path, *, check_hashes: bool = True) -> Bundle:
        """Read and check a bundle.

        Args:
            path: the bundle's directory.
            check_hashes: False skips reading the files (sizes are checked all the same).

        Raises:
            InputError: not a bundle, another schema, damaged, or with paths that lead out.
        """
        root = Path(path).resolve()
        if not (root / MANIFEST).is_file():
            raise InputError(
                f"no bundle at {path}; python -m ndp_edge.build --out {path} makes one"
            )
        manifest, digest = read_manifest(root)
        config = NdpConfig.from_json(json.dumps(manifest["config"]))
        for name, entry in manifest["files"].items():
            check_file(root, name, entry, check_hashes)
        return cls(root, manifest, config, digest)

    @property
    def default(self) -> tuple[str, str]:
        """(backend, precision) of the engine that this bundle was built to run."""
        return self.manifest["default"]["backend"], self.manifest["default"]["precision"]

    @property
    def threshold(self) -> float:
        """Reject if and only if score > threshold; promised for the default engine."""
        return float(self.manifest["threshold"]["value"])

    @property
    def backends(self) -> list[str]:
        """Backends that this bundle has engines for, in the manifest's order."""
        return list(dict.fromkeys(e["backend"] for e in self.manifest["engines"]))

    def precisions(self, backend: str) -> list[str]:
        """Precisions that this bundle has for a backend, in the manifest's order."""
        return [e["precision"] for e in self.manifest["engines"] if e["backend"] == backend]

    def engine_path(self, backend: str, precision: str, sm: str | None = None) -> Path:
        """The model file of one engine.

        Args:
            backend, precision: which.
            sm: the card at hand ("sm86"), for backends that have an engine a card; that
                card's is taken where there is one, else the first.

        Raises:
            InputError: the bundle has no such engine; the line names those it has.
        """
        fitting = [
            entry
            for entry in self.manifest["engines"]
            if (entry["backend"], entry["precision"]) == (backend, precision)
        ]
        fitting.sort(key=lambda entry: entry.get("sm") != sm)
        if fitting:
            return self.file(fitting[0]["file"])
        have = ", ".join(f"{e['backend']} {e['precision']}" for e in self.manifest["engines"])
        raise InputError(
            f"{self.root} has no {backend} {precision} engine, only {have}; build one with "
            f"python -m ndp_edge.build --engine {backend} --{precision}"
        )

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists.

        Raises:
            InputError: it is not listed.
        """
        if name not in self.manifest["files"]:
            raise InputError(f"{self.root} has no {name}; build the bundle again")
        return self.root / name


class BundleWriter:
    """Context manager: write files under a hidden sibling of `out`, then `commit`.

    Leaving without a commit removes everything; a kill leaves a hidden sibling that the
    next writer for the same `out` removes. `out` itself is whole at every moment.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(out).resolve()
        self._temporary: Path | None = None
        self._lock = -1

    def __enter__(self) -> BundleWriter:
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            clean_stale(self.out)
            self._temporary, self._lock = locked_sibling(self.out)
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise InputError(f"cannot write beside {self.out}: {error.strerror}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
        os.close(self._lock)

    def path(self, name: str) -> Path:
        """Where to write the file that the bundle will hold under `name`."""
        if self._temporary is None:
            raise RuntimeError("BundleWriter.path outside of its with block or after commit")
        target = self._temporary / safe_name(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def commit(self, manifest: dict[str, Any], *, force: bool = False) -> Path:
        """Hash every file, write the manifest and move the whole to `out`.

        Args:
            manifest: everything but "schema", "files" and "digest", which are added here.
            force: replace an earlier bundle at `out`.

        Raises:
            InputError: `out` is taken, as `refuse_existing` says.
            OSError: the disk is full or gone; nothing is left at `out`.
        """
        temporary = self.path(MANIFEST).parent
        files = {
            p.relative_to(temporary).as_posix(): _entry(p)
            for p in sorted(temporary.rglob("*"))
            if p.is_file()
        }
        text = seal({**manifest, "files": files})
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        refuse_existing(self.out, force=force)
        put_in_place(temporary, self.out)
        self._temporary = None
        return self.out

    def commit_plain(self) -> Path:
        """Move the whole to `out` as it is, no manifest: the report of a build that failed.

        Raises:
            InputError: something other than such a report stands at `out`.
        """
        temporary = self.path("report.json").parent
        if self.out.exists() and not _is_report(self.out):
            raise InputError(f"{self.out} exists and is not a report; move it away")
        put_in_place(temporary, self.out)
        self._temporary = None
        return self.out


def refuse_existing(out: Path, *, force: bool) -> None:
    """See that `out` is free: absent, empty, or with `force` an earlier bundle.

    Raises:
        InputError: it is not. Not even `force` replaces a directory that is no bundle.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not (out / MANIFEST).is_file():
        raise InputError(f"{out} exists and is not a bundle; name another --out")
    if not force:
        raise InputError(f"{out} exists; --force replaces it, or name another --out")


def _is_report(path: Path) -> bool:
    names = {"report.json", "report.html"}
    return path.is_dir() and all(p.name in names for p in path.iterdir())


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": file_hash(path), "size": path.stat().st_size}
