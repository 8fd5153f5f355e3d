"""The ways to a receiver of verdicts: HTTP POST, and MQTT through paho-mqtt (extra `mqtt`)."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from ndp_edge.errors import InputError, MachineError
from ndp_edge.runtime.remote import RefusedError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

SECONDS = 5.0
"""A receiver that is silent for so long has failed."""

_LATER = (408, 425, 429)
"""HTTP answers of the 400s that ask to come again."""


class Webhook:
    """POSTs each message as application/json over one connection that is kept.

    A 2xx answer is a delivery; 5xx, 408, 425, 429 and a failed connection are tried again;
    everything else, redirections too, is a refusal.

    Args:
        url: http:// or https://, with user:password@ where the receiver wants it.
        seconds: how long the receiver may be silent.

    Raises:
        InputError: no such URL.
    """

    def __init__(self, url: str, seconds: float = SECONDS) -> None:
        parts = _split(url, "--webhook", ("http", "https"))
        tls = parts.scheme == "https"
        kind = http.client.HTTPSConnection if tls else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=seconds)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"Content-Type": "application/json", "User-Agent": "ndp-edge"}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            word = base64.b64encode(pair.encode()).decode()
            self._headers["Authorization"] = f"Basic {word}"

    def __call__(self, message: bytes) -> None:
        """POST it; raises as `Sender` says."""
        kept = self._connection.sock is not None
        try:
            status = self._post(message)
        except OSError:
            if not kept:
                raise
            status = self._post(message)  # the receiver had closed the idle connection
        if status in _LATER or status >= 500:
            raise OSError(f"answers {status}")
        if not 200 <= status < 300:
            raise RefusedError(f"answers {status}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _post(self, message: bytes) -> int:
        try:
            self._connection.request("POST", self._target, message, self._headers)
            answer = self._connection.getresponse()
            if len(answer.read(1 << 16)) == 1 << 16:  # nobody wants the rest
                self._connection.close()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            if isinstance(error, OSError):
                raise
            raise OSError(f"answers no HTTP ({type(error).__name__})") from error
        return answer.status


class Mqtt:
    """Publishes each message with quality of service 1: the broker acknowledges it.

    Args:
        spec: [mqtt[s]://][user:password@]HOST[:PORT]/TOPIC; mqtts is TLS. Ports default to
            1883 and 8883; the topic may hold slashes.
        seconds: how long the broker may be silent.

    Raises:
        InputError: no such address.
        MachineError: paho-mqtt is not installed.
    """

    def __init__(self, spec: str, seconds: float = SECONDS) -> None:
        url = spec if "://" in spec else f"mqtt://{spec}"
        self._parts = _split(url, "--mqtt", ("mqtt", "mqtts"))
        self.topic = unquote(self._parts.path.removeprefix("/"))
        # Wildcards are for subscribers, and urlsplit would cut the topic off at two of these.
        wild = set("+#?\0") & {*self.topic, *spec.rpartition("@")[2]}
        if not self.topic or wild:
            raise InputError(f"--mqtt {_redacted(spec)}: name the topic, as in HOST:1883/line/7")
        if importlib.util.find_spec("paho") is None:
            raise MachineError(
                "--mqtt needs paho-mqtt; install it with: pip install 'ndp-edge[mqtt]'"
            )
        self._seconds = seconds
        self._client: Client | None = None

    def __call__(self, message: bytes) -> None:
        """Publish it; raises as `Sender` says."""
        try:
            client = self._client = self._client or self._connect()
            sent = client.publish(self.topic, message, qos=1)
            sent.wait_for_publish(self._seconds)
            if not sent.is_published():
                raise OSError("the broker does not acknowledge")
        except (OSError, ValueError, RuntimeError) as error:
            self.close()
            if isinstance(error, OSError):
                raise
            raise OSError(str(error)) from error

    def close(self) -> None:
        """Leave the broker."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _connect(self) -> Client:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        answered = threading.Event()
        answers: list[Any] = []

        def on_connect(_client: Any, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
            answers.append(code)
            answered.set()

        client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        client.on_connect = on_connect
        client.connect_timeout = self._seconds
        tls = self._parts.scheme == "mqtts"
        if tls:
            client.tls_set()
        if self._parts.username is not None:
            client.username_pw_set(
                unquote(self._parts.username), unquote(self._parts.password or "")
            )
        client.connect(self._parts.hostname or "", self._parts.port or (8883 if tls else 1883))
        client.loop_start()
        if not answered.wait(self._seconds) or answers[0].is_failure:
            client.disconnect()
            client.loop_stop()
            raise OSError(f"the broker says: {answers[0]}" if answers else "the broker is silent")
        return client


def _split(url: str, option: str, schemes: tuple[str, ...]) -> SplitResult:
    """The parts of a URL.

    Raises:
        InputError: another scheme, no host, or a port that is none.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(sign.isspace() or not sign.isprintable() for sign in url):
        raise InputError(
            f"{option} {_redacted(url)}: is no address; give {schemes[0]}://HOST:PORT/…"
        )
    return parts


def _redacted(url: str) -> str:
    head, at, tail = url.rpartition("@")
    scheme, mark, _ = head.partition("://")
    return f"{scheme}{mark}***@{tail}" if at and mark else (f"***@{tail}" if at else url)
