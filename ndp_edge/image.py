"""Reading, checking and resizing pictures: with `pixels`, the only place that knows colour order.

Every picture leaves this module as uint8 [H, W, 3] RGB, 0 to 255, whatever the file held. cv2 is
imported inside the functions, so that importing this module costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ndp_edge.errors import InputError
from ndp_edge.files import write_atomic
from ndp_edge.imagefile import check_complete
from ndp_edge.pixels import to_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def is_image_name(path: Path) -> bool:
    """True for a name that ends as one of SUFFIXES (any case) and is not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_image(path: Path | str, pixel: str = "auto") -> NDArray[np.uint8]:
    """Read one picture file.

    Args:
        path: the file.
        pixel: what it holds, see `pixels`: "rggb12" for a mosaic saved as a gray picture.

    Returns uint8 [H, W, 3], RGB, 0 to 255, contiguous. Gray is replicated over three channels,
    16-bit is scaled by its type (65535 -> 255, never by its content), alpha is dropped, a palette
    becomes its colours, and a photograph's EXIF orientation is applied.

    Raises InputError: missing, empty, no picture, truncated or damaged, a pixel type whose range
    is not known (floating point), or one that the format does not fit.
    """
    path = Path(path)
    raw = _decode(path, _read_bytes(path))
    try:
        return to_rgb(raw, pixel)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_square(path: Path | str, size: int) -> NDArray[np.uint8]:
    """Read a square picture and bring it to uint8 [size, size, 3] RGB (area averaging).

    Raises InputError as read_image and to_square do, naming the file.
    """
    image = read_image(path)
    try:
        return to_square(image, size)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def to_square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Bring a square uint8 [H, H, 3] to [size, size, 3] by area averaging: what the net takes.

    Raises InputError when the picture is not square or smaller than size: stretching or
    enlarging would show the net something the camera never saw.
    """
    height, width = image.shape[:2]
    if height != width:
        raise InputError(
            f"{width}x{height} pixels is not square; crop or tile it to squares of at "
            f"least {size}x{size}"
        )
    if height < size:
        raise InputError(
            f"{width}x{height} pixels is smaller than the net's {size}x{size}; take "
            f"larger pictures or train with a smaller --image-size"
        )
    return np.asarray(_shrink(image, size), np.uint8)


def read_mask(path: Path | str, size: int) -> NDArray[np.bool_]:
    """Read a ground-truth mask as bool [size, size]; every non-zero pixel counts as defect.

    A larger mask is shrunk: an output pixel is True where at least half its area was marked. A
    marked mask never shrinks to nothing: then any covered pixel is True.

    Raises InputError as read_image does, for a JPEG (its ringing leaves non-zero pixels), and
    when the mask is not square or smaller than size.
    """
    marked = read_marks(path)
    height, width = marked.shape
    if height != width or height < size:
        raise InputError(
            f"{path}: a mask of {width}x{height} pixels does not fit pictures that are square and "
            f"at least {size}x{size}; save it at its picture's size"
        )
    if height == size:
        return marked
    covered = _shrink(marked.astype(np.float32), size)
    half = np.asarray(covered >= 0.5)
    return half if half.any() else np.asarray(covered > 0)


def read_marks(path: Path | str) -> NDArray[np.bool_]:
    """A mask file at its own size: bool [H, W], True where any colour channel is not zero.

    Judged on the stored values, so that a mask of 0 and 1 works in 8 and in 16 bits. Raises
    InputError as read_mask does.
    """
    path = Path(path)
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        raise InputError(f"{path}: a mask stored as JPEG is not exact; save it as PNG")
    raw = _decode(path, _read_bytes(path))
    marked = raw != 0
    return np.asarray(marked if marked.ndim == 2 else marked[:, :, :3].any(axis=2))


def is_gray(image: NDArray[np.uint8]) -> bool:
    """True when the three channels of uint8 [..., 3] are equal everywhere."""
    return bool(
        np.array_equal(image[..., 0], image[..., 1])
        and np.array_equal(image[..., 0], image[..., 2])
    )


def write_png(path: Path | str, array: NDArray[Any]) -> None:
    """Write uint8 [H, W, 3] RGB, uint8 [H, W] or bool [H, W] (0/255) as PNG, atomically.

    Raises ValueError for another type or shape; OSError where the disk refuses.
    """
    import cv2

    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.dtype != np.uint8 or not (
        array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    ):
        raise ValueError(f"write_png takes uint8 [H,W,3] or [H,W], got {array.dtype} {array.shape}")
    stored = array if array.ndim == 2 else array[:, :, ::-1]
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(stored))
    if not done:
        raise ValueError(f"cannot encode an array of shape {array.shape} as PNG")
    write_atomic(Path(path), encoded.tobytes())


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, not a picture") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not data:
        raise InputError(f"{path}: the file is empty; copy it again from its source")
    return data


def _decode(path: Path, data: bytes) -> NDArray[Any]:
    """Decode with cv2 to [H, W] or [H, W, C] BGR of the file's own depth."""
    import cv2

    problem = check_complete(data)  # cv2 half-decodes truncated files without a word
    if problem:
        raise InputError(f"{path}: {problem}; copy it again from its source or remove it")
    try:
        raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except cv2.error:
        raw = None
    if raw is None or raw.size == 0:
        raise InputError(f"{path}: cannot be decoded; save it again as PNG or remove it")
    return np.asarray(raw)


def _shrink(image: NDArray[Any], size: int) -> NDArray[Any]:
    if image.shape[0] == size:
        return image
    import cv2

    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA))
