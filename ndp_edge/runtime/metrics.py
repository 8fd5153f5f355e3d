"""The line's figures for Prometheus, through its own client library (extra `monitor`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ndp_edge.errors import InputError, MachineError
from ndp_edge.runtime.baseline import Drift
from ndp_edge.runtime.observing import Observer, Seen
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


class Metrics(Observer):
    """An observer with a registry of its own.

    Args:
        recent, drift, remotes: give what is read when somebody asks.
        threshold: where it stands now.
    """

    pictures = False

    def __init__(
        self,
        recent: Recent,
        drift: Drift,
        remotes: Sequence[Remote],
        threshold: Callable[[], float],
    ) -> None:
        from prometheus_client import CollectorRegistry, Histogram

        self.registry = CollectorRegistry()
        self._latency = Histogram(
            "ndp_edge_latency_seconds",
            "time per stage; total runs from capture to the line in results.jsonl",
            ["stage"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.registry.register(_asked(recent, drift, remotes, threshold))

    def verdict(self, seen: Seen) -> None:
        """Take its times."""
        if seen.line.get("error") is not None:
            return
        for stage, ms in seen.line["latency_ms"].items():
            if stage in STAGES:
                self._latency.labels(stage).observe(ms / 1e3)

    def text(self) -> bytes:
        """The text exposition format, version 0.0.4."""
        from prometheus_client import generate_latest

        data: bytes = generate_latest(self.registry)
        return data


class MetricsServer(Observer):
    """An observer that serves /metrics on a port of its own.

    Args:
        metrics: what is served.
        host, port: where; port 0 takes a free one.

    Raises:
        InputError: the port is taken or the host is none of this machine's.
    """

    pictures = False

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
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    told = recent.report()
    frames = CounterMetricFamily("ndp_edge_frames", "frames with a verdict", labels=["verdict"])
    for verdict in ("ok", "reject"):  # a series that is there from the start has a rate
        frames.add_metric([verdict], told[verdict])
    yield frames
    dropped = CounterMetricFamily("ndp_edge_dropped", "frames given up", labels=["why"])
    for why, count in told["drops"].items():
        dropped.add_metric([why], count)
    yield dropped
    late, errors = "verdicts after their deadline", "frames rejected unjudged"
    yield CounterMetricFamily("ndp_edge_late", late, value=told["late"])
    yield CounterMetricFamily("ndp_edge_not_judged", errors, value=told["not_judged"])
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
    told = {"line": np.quantile(samples, QUANTILES)} if len(samples) else {}
    if drift.baseline is not None:
        told["baseline"] = drift.baseline.at(QUANTILES)
    for of, values in told.items():
        for q, value in zip(QUANTILES, values, strict=True):
            found.add_metric([of, str(q)], float(value))
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
