"""Who watches a run: the monitor page, Prometheus, webhooks, an MQTT broker; by its options."""

from __future__ import annotations

import argparse
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ndp_edge.bundle import Bundle
from ndp_edge.console import info
from ndp_edge.runtime.baseline import Baseline, Drift
from ndp_edge.runtime.metrics import Metrics, MetricsServer, check_prometheus, has_prometheus
from ndp_edge.runtime.monitor.gallery import Gallery
from ndp_edge.runtime.monitor.server import MonitorServer
from ndp_edge.runtime.monitor.view import View
from ndp_edge.runtime.observing import Control, Observer
from ndp_edge.runtime.opening import is_camera, redact
from ndp_edge.runtime.recent import Recent
from ndp_edge.runtime.remote import Remote
from ndp_edge.runtime.senders import Mqtt, Webhook

LOOPBACK = "127.0.0.1"


@dataclass
class Watch:
    """The observers of one run, and what they leave in summary.json."""

    observers: list[Observer] = field(default_factory=list)
    drift: Drift | None = None
    remotes: list[Remote] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """drift (see `Drift.report`) and told (one `Remote.report` each), where there are any."""
        told: dict[str, Any] = {}
        if self.drift is not None:
            told["drift"] = self.drift.report()
        if self.remotes:
            told["told"] = [remote.report() for remote in self.remotes]
        return told


@contextlib.contextmanager
def watching(args: argparse.Namespace, control: Control, bundle: Bundle) -> Iterator[Watch]:
    """Everyone whom the options name, until the block ends.

    Raises:
        InputError: an address is none, a port is taken, or the bundle's baseline is malformed.
        MachineError: an extra is not installed.
    """
    if args.metrics_port is not None:
        check_prometheus()
    watch = Watch()
    try:
        _tell(args, watch)
        if args.monitor is not None or args.metrics_port is not None:
            _show(args, control, bundle, watch)
        yield watch
    finally:
        for observer in watch.observers:
            observer.close()


def _tell(args: argparse.Namespace, watch: Watch) -> None:
    senders = {
        "webhook": None if args.webhook is None else Webhook(args.webhook),
        "mqtt": None if args.mqtt is None else Mqtt(args.mqtt),
    }
    for kind, sender in senders.items():
        if sender is not None:
            watch.remotes.append(Remote(kind, sender, rejects=args.tell == "rejects"))
    watch.observers += watch.remotes


def _show(args: argparse.Namespace, control: Control, bundle: Bundle, watch: Watch) -> None:
    recent, drift = Recent(), Drift(Baseline.of(bundle.manifest))
    watch.drift = drift
    watch.observers += [recent, drift]
    host = args.monitor_host or LOOPBACK
    metrics = None
    if has_prometheus():
        metrics = Metrics(recent, drift, watch.remotes, lambda: control.threshold)
        watch.observers.append(metrics)
        if args.metrics_port is not None:
            served = MetricsServer(metrics, host, args.metrics_port)
            watch.observers.append(served)
            info(f"metrics: http://{_name(host)}:{served.port}/metrics")
    if args.monitor is None:
        return
    gallery = Gallery()
    watch.observers.append(gallery)
    view = View(
        recent,
        drift,
        gallery,
        control,
        bundle.threshold,
        source=_short(args.source),
        bundle=bundle.hash,
        deadline_ms=args.deadline_ms,
        read_only=args.monitor_read_only,
        remotes=watch.remotes,
    )
    server = MonitorServer(view, host, args.monitor, metrics)
    watch.observers.append(server)
    info(f"monitor: http://{_name(host)}:{server.port}/")
    if host not in (LOOPBACK, "::1", "localhost") and not args.monitor_read_only:
        info(
            "warning: whoever reaches this address can turn the threshold; --monitor-read-only "
            "forbids it"
        )


def _name(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _short(source: str) -> str:
    """A folder's or a file's own name; a camera's address without its password."""
    return redact(source) if is_camera(source) else Path(source).resolve().name
