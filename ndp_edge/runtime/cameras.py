"""V4L2 cameras, network streams and GStreamer pipelines, through OpenCV.

OpenCV's FFmpeg reader scales every picture of a stream to the size of the first. A camera that
changes its picture's size within one RTSP session goes unnoticed here; MJPEG over HTTP is read
by `mjpeg` instead, which sees it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError, MachineError
from ndp_edge.pixels import parse_pixel
from ndp_edge.runtime.reconnecting import LostError

if TYPE_CHECKING:
    import cv2

URLS = ("rtsp://", "rtsps://", "http://", "https://")

_V4L2_CODES = {
    ("mono", 8): "GREY", ("mono", 16): "Y16 ", ("mono", 10): "Y10 ", ("mono", 12): "Y12 ",
    ("rggb", 8): "RGGB", ("bggr", 8): "BA81", ("grbg", 8): "GRBG", ("gbrg", 8): "GBRG",
    ("rggb", 16): "RG16", ("bggr", 16): "BYR2", ("grbg", 16): "GR16", ("gbrg", 16): "GB16",
}  # fmt: skip
"""Pixel formats as the kernel names them (linux/videodev2.h)."""


class CvCamera:
    """An open `cv2.VideoCapture` as a connection.

    Args:
        spec: `v4l2:N`, `/dev/videoN`, a URL of rtsp or http, or `gst:PIPELINE`.
        pixel: what the pictures hold. Anything but auto asks a V4L2 camera for just that, and
            for its raw values.
        stall_seconds: FFmpeg is given a little less, so that it ends a stalled read itself.

    Raises:
        LostError: it cannot be opened.
    """

    def __init__(self, spec: str, pixel: str = "auto", stall_seconds: float = 5.0) -> None:
        self.pixel = pixel
        self._capture = _open(spec, pixel, stall_seconds)
        if not self._capture.isOpened():
            self._capture.release()
            raise LostError("it cannot be opened")

    def wait(self) -> None:
        """Raises LostError when the stream ended, broke or timed out."""
        if not self._capture.grab():
            raise LostError("it ended or broke")

    def take(self) -> NDArray[Any] | None:
        """uint8 or uint16, [H, W] or [H, W, 3] in BGR."""
        read, raw = self._capture.retrieve()
        return np.asarray(raw) if read and raw is not None and raw.size else None

    def close(self) -> None:
        """Free the device."""
        self._capture.release()


def is_camera(spec: str) -> bool:
    """True for what CvCamera opens."""
    return spec.startswith((*URLS, "v4l2:", "gst:", "/dev/video"))


def check_camera(spec: str) -> None:
    """See whether this machine can open such a source at all; opens nothing.

    Raises:
        InputError: the name is wrong, or there is no such device.
        MachineError: this OpenCV was built without what it takes.
    """
    import cv2

    backend, lacks = _needed(spec)
    if not cv2.videoio_registry.hasBackend(backend):
        raise MachineError(f"--source {spec.split(':', maxsplit=1)[0]}: {lacks}")
    if spec.startswith(("v4l2:", "/dev/video")) and not Path(_device(spec)).exists():
        present = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        raise InputError(f"--source {spec}: no camera at {_device(spec)}; there is {present}")
    if spec == "gst:":
        raise InputError("--source gst: wants a pipeline that ends in appsink behind the colon")


def _needed(spec: str) -> tuple[int, str]:
    """OpenCV's backend for a source, and what to do where it is missing."""
    import cv2

    if spec.startswith("gst:"):
        return cv2.CAP_GSTREAMER, (
            "GStreamer pipelines need an OpenCV built with GStreamer, which the wheels of "
            "opencv-python are not: install your system's (apt install python3-opencv) or build it"
        )
    if spec.startswith(URLS):
        return cv2.CAP_FFMPEG, (
            "streams need an OpenCV with FFmpeg; install it with: pip install "
            "opencv-python-headless"
        )
    return cv2.CAP_V4L2, (
        "cameras of this kind need an OpenCV with V4L2, which is on Linux only; install it with: "
        "pip install opencv-python-headless"
    )


def _device(spec: str) -> str:
    """The path of a V4L2 camera."""
    name = spec.removeprefix("v4l2:")
    return f"/dev/video{name}" if name.isdecimal() else name


def _open(spec: str, pixel: str, stall_seconds: float) -> cv2.VideoCapture:
    import cv2

    if spec.startswith("gst:"):
        return cv2.VideoCapture(spec.removeprefix("gst:"), cv2.CAP_GSTREAMER)
    if spec.startswith(URLS):
        patience = round(900 * stall_seconds)
        limits = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            patience,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            patience,
        ]
        return cv2.VideoCapture(spec, cv2.CAP_FFMPEG, limits)
    capture = cv2.VideoCapture(_device(spec), cv2.CAP_V4L2)
    layout, depth = parse_pixel(pixel)
    code = _V4L2_CODES.get((layout, depth or 8))
    if code is not None and capture.isOpened():
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*code))
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    return capture
