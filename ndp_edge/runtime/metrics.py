"""The line's figures for Prometheus, through its own client library (extra `monitor`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ndp_edge.errors import InputError, MachineError
from ndp_edge.runtime.baseline import Drift
from ndp_edge.runtime.observing import Onlooker, Seen
from ndp_edge.runtime.recent import Recent
from ndp_edge.runtime.remote import Remote
from ndp_edge.runtime.summary import STAGES

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

QUANTILES = (0.05, 0.5, 0.95, 0.99)
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Upper ends in seconds of the latency histograms."""

_QUEUES = ("waiting", "tiled", "inferred", "judged")


def check_prometheus() -> None:
    """Raises MachineError where the client library is not installed."""
    if not has_prometheus():
        raise MachineError(
            "metrics need prometheus_client; install it with: pip install 'ndp-edge[monitor]'"
        )


def has_prometheus() -> bool:
    """Whether the client library is installed."""
    return importlib.util.find_spec("prometheus_client") is not None


class Metrics(Onlooker):
    """An observer with a registry of its own.

    Args:
        recent, drift, remotes: give what is read when somebody asks.
        threshold: where it stands now.
    """

    def __init__(
        self,
        recent: Recent,
        drift: Drift,
        remotes: Sequence[Remote],
        threshold: Callable[[], float],
    ) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.registry = CollectorRegistry()
        self._frames = Counter(
            "ndp_edge_frames", "frames with a verdict", ["verdict"], registry=self.registry
        )
        self._lost = Counter("ndp_edge_dropped", "frames given up", ["why"], registry=self.registry)
        self._late = Counter(
            "ndp_edge_late", "verdicts after their deadline", registry=self.registry
        )
        self._errors = Counter(
            "ndp_edge_not_judged", "frames rejected unjudged", registry=self.registry
        )
        self._latency = Histogram(
            "ndp_edge_latency_seconds",
            "time per stage; total runs from capture to the line in results.jsonl",
            ["stage"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        for verdict in ("ok", "reject"):  # a series that is there from the start has a rate
            self._frames.labels(verdict)
        self.registry.register(_asked(recent, drift, remotes, threshold))

    def verdict(self, seen: Seen) -> None:
        """Count a frame and its times."""
        line = seen.line
        self._frames.labels(line["verdict"]).inc()
        if line.get("late"):
            self._late.inc()
        if line.get("error") is not None:
            self._errors.inc()
            return
        for stage, ms in line["latency_ms"].items():
            if stage in STAGES:
                self._latency.labels(stage).observe(ms / 1e3)

    def dropped(self, name: str, time: float, why: str) -> None:
        """Count a drop."""
        self._lost.labels(why).inc()

    def text(self) -> bytes:
        """The text exposition format, version 0.0.4."""
        from prometheus_client import generate_latest

        data: bytes = generate_latest(self.registry)
        return data


class MetricsServer(Onlooker):
    """An observer that serves /metrics on a port of its own.

    Args:
        metrics: what is served.
        host, port: where; port 0 takes a free one.

    Raises:
        InputError: the port is taken or the host is none of this machine's.
    """

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        from prometheus_client import start_http_server

        try:
            server, self._thread = start_http_server(port, host, metrics.registry)
        except OSError as error:
            raise InputError(f"--metrics-port {port} on {host}: {error.strerror}") from error
        self._server = server
        self.port = int(server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _asked(
    recent: Recent, drift: Drift, remotes: Sequence[Remote], threshold: Callable[[], float]
) -> Collector:
    """A collector of what is computed only when Prometheus asks."""
    from prometheus_client.registry import Collector

    class Asked(Collector):
        def collect(self) -> Iterator[Metric]:
            yield from _line(recent, threshold())
            yield from _scores(recent, drift)
            yield from _drift(drift)
            yield from _told(remotes)

    return Asked()


def _line(recent: Recent, threshold: float) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    told = recent.report(ticks=0)
    values = told["gauges"]
    queues = GaugeMetricFamily("ndp_edge_queue_frames", "frames between stages", labels=["queue"])
    for name in _QUEUES:
        if name in values:
            queues.add_metric([name], values[name])
    yield queues
    for name, value in values.items():
        if name not in _QUEUES:
            yield GaugeMetricFamily(f"ndp_edge_{name}", "as the pipeline tells it", value=value)
    yield GaugeMetricFamily("ndp_edge_threshold", "reject above it", value=threshold)
    yield GaugeMetricFamily(
        "ndp_edge_rejects_in_a_row", "rejects since the last ok", value=told["in_a_row"]
    )


def _scores(recent: Recent, drift: Drift) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    found = GaugeMetricFamily(
        "ndp_edge_score_quantile",
        "scores of the last frames (line), and of good pictures at the build (baseline)",
        labels=["of", "quantile"],
    )
    samples = recent.window().samples
    if len(samples):
        for q in QUANTILES:
            found.add_metric(["line", str(q)], float(np.quantile(samples, q)))
    if drift.baseline is not None:
        for q in QUANTILES:
            place = q * (len(drift.baseline.quantiles) - 1)
            value = np.interp(place, range(len(drift.baseline.quantiles)), drift.baseline.quantiles)
            found.add_metric(["baseline", str(q)], float(value))
    yield found


def _drift(drift: Drift) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    told = drift.report()
    has = told["baseline"] is not None
    yield GaugeMetricFamily("ndp_edge_baseline", "1: the bundle has one", value=float(has))
    if not has:  # no alarm is not the same as no means to raise one
        return
    yield GaugeMetricFamily(
        "ndp_edge_drift_alarm", "1: an alarm lasts", value=float(told["alarm"] is not None)
    )
    if told["distance"] is not None:
        yield GaugeMetricFamily(
            "ndp_edge_drift_distance", "Kolmogorov-Smirnov, 0 to 1", value=told["distance"]
        )
    for name in ("windows", "alarms"):
        yield CounterMetricFamily(
            f"ndp_edge_drift_{name}", "windows of good scores compared; alarms", value=told[name]
        )


def _told(remotes: Sequence[Remote]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    sent = CounterMetricFamily("ndp_edge_told", "verdicts sent elsewhere", labels=["to", "how"])
    waiting = GaugeMetricFamily("ndp_edge_told_waiting", "verdicts to be sent", labels=["to"])
    for remote in remotes:
        told = remote.report()
        for how in ("delivered", "refused", "lost"):
            sent.add_metric([remote.kind, how], told[how])
        waiting.add_metric([remote.kind], told["waiting"])
    yield sent
    yield waiting
