"""What `--source` names, as a source."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ndp_edge.errors import InputError
from ndp_edge.image import is_image_name
from ndp_edge.pixels import parse_pixel
from ndp_edge.runtime import cameras, genicam, mjpeg
from ndp_edge.runtime.reconnecting import STALL_SECONDS, Connection, LiveSource
from ndp_edge.runtime.sources import FolderSource, ListSource, Source
from ndp_edge.runtime.video import VideoSource
from ndp_edge.runtime.watching import WatchedFolder

_LISTS = (".txt", ".csv")


def open_source(
    spec: str,
    *,
    skip: Sequence[str] = (),
    limit: int | None = None,
    watch: bool = False,
    pixel: str = "auto",
    reconnect: bool = True,
    stall_seconds: float = STALL_SECONDS,
) -> Source:
    """Open a source of frames.

    A camera or stream must give a frame at once, or it is refused; only one that has worked
    is waited for when it goes away.

    Args:
        spec: a folder; a list of pictures (.txt, .csv); a video file; `v4l2:N` or /dev/videoN;
            an rtsp, rtsps, http or https URL; `gst:PIPELINE`; `genicam:PRODUCER.cti[#CAMERA]`.
        skip: names already judged, to go on after a stop.
        limit: at most this many frames, those in `skip` included.
        watch: a folder is not finished: go on with what is put into it.
        pixel: what the pictures hold, see `ndp_edge.pixels`.
        reconnect: go on when a camera or stream comes back.
        stall_seconds: a camera or stream without a frame for so long is lost.

    Raises:
        InputError: there is no such source, it gives no frame, or options do not fit it.
        MachineError: this machine lacks what opens it.
    """
    parse_pixel(pixel)
    connect = _connector(spec, pixel, stall_seconds)
    if watch and (connect is not None or not Path(spec).is_dir()):
        raise InputError(f"--source {redact(spec)}: only a folder can be watched")
    if connect is not None:
        source = LiveSource(
            redact(spec),
            connect,
            skip=skip,
            limit=limit,
            pixel=pixel,
            reconnect=reconnect,
            stall_seconds=stall_seconds,
        )
        source.check()
        return source
    if watch:
        return WatchedFolder(Path(spec), skip, limit, pixel)
    return _files(Path(spec), skip, limit, pixel)


def is_camera(spec: str) -> bool:
    """True for a camera or a stream, which has a pace of its own."""
    return spec.startswith("genicam:") or cameras.is_camera(spec)


def redact(spec: str) -> str:
    """A source's name without the password in its URL."""
    return re.sub(r"(\w+://[^/@:]*):[^/\s]*@", r"\1:***@", spec)


def _connector(spec: str, pixel: str, stall_seconds: float) -> Callable[[], Connection] | None:
    """What opens a camera or stream; None for files."""
    if spec.startswith("genicam:"):
        genicam.check_camera(spec)
        return lambda: genicam.GenicamCamera(spec, stall_seconds)
    if cameras.is_camera(spec):
        cameras.check_camera(spec)
        return lambda: _camera(spec, pixel, stall_seconds)
    return None


def _camera(spec: str, pixel: str, stall_seconds: float) -> Connection:
    if spec.startswith(("http://", "https://")):
        answer = mjpeg.ask(spec, 0.9 * stall_seconds)
        if mjpeg.is_multipart(answer):
            return mjpeg.MjpegCamera(answer)
        answer.close()  # a film or another kind of stream: FFmpeg knows them all
    return cameras.CvCamera(spec, pixel, stall_seconds)


def _files(path: Path, skip: Sequence[str], limit: int | None, pixel: str) -> Source:
    if not path.exists():
        raise InputError(
            f"--source {path}: is not there; give a folder of pictures, a list of them, a video, "
            "or a camera (v4l2:0, rtsp://, http://, gst:, genicam:)"
        )
    if path.is_dir():
        return FolderSource(path, skip, limit, pixel)
    if path.suffix.lower() in _LISTS:
        return ListSource(path, skip, limit, pixel)
    if is_image_name(path):
        raise InputError(f"--source {path}: is one picture; give its folder or a list of pictures")
    return VideoSource(path, skip, limit, pixel)
