"""Who may use the monitor, and what a request to turn the threshold must look like."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from dataclasses import dataclass
from email.message import Message
from io import BufferedIOBase
from typing import Any
from urllib.parse import urlsplit

from ndp_edge.errors import InputError
from ndp_edge.runtime.observing import checked

LARGEST_POST = 2048
LONGEST_NAME = 40


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """An HTTP status and one line of text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Turn:
    """A request to turn the threshold.

    Attributes:
        threshold: the new one, in [0, 1].
        expected: what the person saw, or None.
        who: a name, printable, at most `LONGEST_NAME` letters; may be empty.
    """

    threshold: float
    expected: float | None
    who: str


def names_of(host: str) -> set[str]:
    """Names that a monitor bound to `host` answers to, besides every address."""
    name = socket.gethostname().lower()
    return {"localhost", host.lower(), name, f"{name.partition('.')[0]}.local"}


def check_host(headers: Message, names: set[str]) -> None:
    """A page of another site can give this machine a name of its own; it gets no answer.

    Raises:
        Refusal: the Host header is neither an address nor one of `names`.
    """
    try:
        name = (urlsplit(f"//{headers.get('Host', '')}").hostname or "").lower()
    except ValueError:
        name = ""
    if name not in names and not _is_address(name):
        raise Refusal(421, "this monitor does not answer to that name; use its address")


def check_origin(headers: Message) -> None:
    """A page of another site may not post; a program that is no browser sends no Origin.

    Raises:
        Refusal: the page that asks is not the monitor's own.
    """
    origin, host = headers.get("Origin"), headers.get("Host", "").lower()
    site = headers.get("Sec-Fetch-Site", "same-origin")
    if (origin is not None and _place(origin) != host) or site not in ("same-origin", "none"):
        raise Refusal(403, "only the monitor's own page may turn the threshold")


def read_turn(headers: Message, stream: BufferedIOBase) -> Turn:
    """The body of a POST to /threshold.

    Raises:
        Refusal: another content type (a form of another site can send no JSON), too long, or
            not what it should be.
        TimeoutError: less came than was announced.
    """
    if headers.get_content_type() != "application/json":
        raise Refusal(415, "send application/json")
    length = headers.get("Content-Length", "")
    if not re.fullmatch(r"[0-9]{1,9}", length):
        raise Refusal(411, "send a Content-Length")
    if int(length) > LARGEST_POST:
        raise Refusal(413, f"send at most {LARGEST_POST} bytes")
    try:
        body = json.loads(stream.read(int(length)))
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "this is no JSON") from error
    if not isinstance(body, dict) or not isinstance(body.get("who", ""), str):
        raise Refusal(400, 'send {"threshold": 0.5, "from": 0.4, "who": "a name"}')
    who = "".join(sign for sign in body.get("who", "") if sign.isprintable()).strip()
    expected = body.get("from")
    return Turn(
        in_range(body.get("threshold")),
        None if expected is None else in_range(expected),
        who[:LONGEST_NAME],
    )


def in_range(value: Any) -> float:
    """`value` as a threshold.

    Raises:
        Refusal: not a number in [0, 1].
    """
    try:
        return checked(value)
    except InputError as error:
        raise Refusal(400, str(error)) from error


def _place(origin: str) -> str | None:
    """HOST:PORT of an Origin header; None where it is not one of a page."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
