"""MJPEG over HTTP, as many cameras send it: one JPEG per part of a multipart answer.

OpenCV's FFmpeg reader would take these streams too, but it scales every later picture to the
size of the first without a word, and takes one damaged picture for the end of the stream.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from ndp_edge.imagefile import check_complete
from ndp_edge.runtime.reconnecting import LostError

_MOST_BYTES = 1 << 26
_MOST_LINES = 100
_CHUNK = 1 << 16
_END = b"\xff\xd9\r\n"
"""A JPEG's end marker at the end of a part."""


class MjpegCamera:
    """An open multipart answer as a connection.

    Args:
        answer: of a GET request, one that `is_multipart`.
    """

    pixel = "auto"

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        boundary = str(answer.headers.get_param("boundary"))
        self._answer = answer
        # Some cameras write the dashes into the header's boundary, too.
        self._mark = b"--" + boundary.removeprefix("--").encode("latin-1")
        self._rest = b""
        self._part = b""

    def wait(self) -> None:
        """Read the next part. Raises LostError at the end, by a timeout, or lost in garbage."""
        try:
            self._seek()
            length = self._headers()
            self._part = self._until_mark() if length is None else self._answer.read(length)
        except (OSError, http.client.HTTPException) as error:
            raise LostError(f"it broke ({error or type(error).__name__})") from error
        if length is not None and len(self._part) < length:
            raise LostError("it ended")

    def take(self) -> NDArray[Any] | None:
        """uint8 [H, W] or [H, W, 3] in BGR; None where the part is no whole picture."""
        import cv2

        if check_complete(self._part) is not None:
            return None
        try:
            raw = cv2.imdecode(np.frombuffer(self._part, np.uint8), cv2.IMREAD_ANYCOLOR)
        except cv2.error:
            return None
        return None if raw is None else np.asarray(raw)

    def close(self) -> None:
        """Hang up."""
        self._answer.close()

    def _line(self) -> bytes:
        line, self._rest = self._rest or self._answer.readline(_CHUNK), b""
        if not line:
            raise LostError("it ended")
        return line

    def _seek(self) -> None:
        """Go behind the next boundary."""
        passed = 0
        while not (line := self._line()).startswith(self._mark):
            passed += len(line)
            if passed > _MOST_BYTES:
                raise LostError("it sends garbage")
        if line.rstrip().endswith(b"--") and line.rstrip() != self._mark:
            raise LostError("it ended")

    def _headers(self) -> int | None:
        """The part's Content-Length; None where it has none."""
        length = None
        for _ in range(_MOST_LINES):
            line = self._line().strip()
            if not line:
                return length
            key, _, value = line.partition(b":")
            if key.strip().lower() == b"content-length":
                text = value.strip()
                length = int(text) if text.isdigit() else -1
                if not 0 <= length <= _MOST_BYTES:
                    raise LostError("it sends garbage")
        raise LostError("it sends garbage")

    def _until_mark(self) -> bytes:
        """A part without a length: to the picture's end, or for one that has none the boundary."""
        part = bytearray()
        fresh = True
        while len(part) <= _MOST_BYTES:
            line = self._line()
            if fresh and line.startswith(self._mark):
                self._rest = line
                return bytes(part)
            fresh = line.endswith(b"\n")
            part += line
            if line.endswith(_END) and check_complete(bytes(part)) is None:
                return bytes(part)
        raise LostError("it sends garbage")


def is_multipart(answer: http.client.HTTPResponse) -> bool:
    """True for an answer that replaces one picture by the next."""
    kind = answer.headers.get_content_type()
    return kind == "multipart/x-mixed-replace" and bool(answer.headers.get_param("boundary"))


def ask(url: str, seconds: float) -> http.client.HTTPResponse:
    """GET, straight to the camera (no proxy), with the URL's user and password where it has them.

    Args:
        url: http or https.
        seconds: the longest wait for a connection, and later for anything that comes over it.

    Raises:
        LostError: nobody answers, or not with a stream.
    """
    parts = urlsplit(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if parts.username is not None:
        secrets = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        secrets.add_password(None, bare, unquote(parts.username), unquote(parts.password or ""))
        handlers += [
            urllib.request.HTTPDigestAuthHandler(secrets),
            urllib.request.HTTPBasicAuthHandler(secrets),
        ]
    try:
        answer = urllib.request.build_opener(*handlers).open(bare, timeout=seconds)
    except urllib.error.HTTPError as error:
        with error:
            raise LostError(f"it answers {error.code} {error.reason}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise LostError(f"it cannot be opened ({reason})") from None
    found: http.client.HTTPResponse = answer
    return found
