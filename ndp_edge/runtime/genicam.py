"""GenICam cameras (GigE Vision, USB3 Vision, CoaXPress) through harvesters, an extra.

A camera's maker ships a GenTL producer, a file that ends in .cti; harvesters loads it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError, MachineError
from ndp_edge.runtime.reconnecting import LostError

_MOSAICS = {"RG": "rggb", "BG": "bggr", "GR": "grbg", "GB": "gbrg"}
_FORMAT = re.compile(r"(Mono|Bayer(?P<mosaic>RG|BG|GR|GB)|RGB|BGR)(?P<depth>8|10|12|14|16)")


def check_camera(spec: str) -> None:
    """See whether `genicam:PRODUCER.cti[#CAMERA]` can be opened here; opens nothing.

    Raises:
        InputError: no such producer.
        MachineError: harvesters is not installed.
    """
    producer, _ = _parts(spec)
    if not producer.is_file():
        raise InputError(
            f"--source {spec}: no GenTL producer at {str(producer)!r}; give the .cti file of the "
            "camera's maker behind the colon"
        )
    if importlib.util.find_spec("harvesters") is None:
        raise MachineError(
            "GenICam cameras need harvesters; install it with: pip install 'ndp-edge[genicam]'"
        )


def pixel_of(data_format: str) -> str:
    """A format of the Pixel Format Naming Convention as `ndp_edge.pixels` writes it.

    Raises:
        LostError: a packed one, or none that this package takes.
    """
    found = _FORMAT.fullmatch(data_format)
    if found is None:
        raise LostError(
            f"it sends {data_format}; set its PixelFormat to Mono, BayerRG, BayerGR, BayerGB, "
            "BayerBG, RGB or BGR with 8 to 16 bits, not packed"
        )
    layout = _MOSAICS.get(found["mosaic"] or "", found[1].lower())
    return f"{layout}{found['depth']}"


class GenicamCamera:
    """An acquiring camera as a connection.

    Args:
        spec: as `check_camera` takes it; CAMERA is a place in the producer's list (from 0, the
            default) or a serial number.
        stall_seconds: longest wait for a frame.

    Raises:
        LostError: there is no such camera, or it cannot be opened.
    """

    def __init__(self, spec: str, stall_seconds: float = 5.0) -> None:
        producer, camera = _parts(spec)
        self.pixel = "auto"
        self._stall = stall_seconds
        self._buffer: Any = None
        self._camera: Any = None
        self._harvester: Any = importlib.import_module("harvesters.core").Harvester()
        try:
            self._harvester.add_file(str(producer))
            self._harvester.update()
            which = int(camera) if _is_place(camera) else {"serial_number": camera}
            self._camera = self._harvester.create(which)
            self._camera.start()
        except Exception as error:  # producers raise what they like
            self.close()
            raise LostError(f"it cannot be opened ({_line(error)})") from error

    def wait(self) -> None:
        """Raises LostError when no frame comes."""
        try:
            self._buffer = self._camera.fetch(timeout=0.9 * self._stall)
        except Exception as error:
            raise LostError(_line(error)) from error

    def take(self) -> NDArray[Any] | None:
        """uint8 or uint16, [H, W] or [H, W, 3]; None for an incomplete one."""
        buffer, self._buffer = self._buffer, None
        try:
            parts = [] if buffer is None else buffer.payload.components
            if not parts:
                return None
            part = parts[0]
            self.pixel = pixel_of(part.data_format)
            shape = (part.height, part.width, -1)
            pixels = np.array(part.data).reshape(shape)  # the buffer goes back to the driver
        except ValueError:  # less data than the size says: packets were lost
            return None
        finally:
            if buffer is not None:
                buffer.queue()
        return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels

    def close(self) -> None:
        """Free the camera and its producer; each step is taken though one before it fails."""
        with contextlib.ExitStack() as steps:  # the last one pushed comes first
            steps.callback(self._harvester.reset)
            if self._camera is not None:
                steps.callback(self._camera.destroy)
                steps.callback(self._camera.stop)
            if self._buffer is not None:
                steps.callback(self._buffer.queue)


def _parts(spec: str) -> tuple[Path, str]:
    producer, _, camera = spec.removeprefix("genicam:").partition("#")
    return Path(producer), camera or "0"


def _is_place(camera: str) -> bool:
    return camera.isdecimal() and len(camera) < 4  # serial numbers are longer


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
