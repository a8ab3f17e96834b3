"""The rounds as numbers that Prometheus scrapes."""

from __future__ import annotations

import time
from typing import Any

from bmsfed_app.choice import package_fault
from server_app.callbacks import CALLBACKS, Watched
from strategies import Callback, Decisions, RoundReport


@CALLBACKS.register("prometheus")
class Prometheus(Callback):
    """Serves ``/metrics`` from this process while the run goes on.

    Every number that the round's report holds is one of ``bmsfed_metric``, by its name and, where
    it is by modality, by that; the rest is named below.

    Parameters
    ----------
    watched : Watched
    port : int, default 9100
        0 takes any free one.
    host : str, default "127.0.0.1"
        Address to listen on: what is served is neither encrypted nor asks who reads it.

    Raises
    ------
    ValueError
        If the package prometheus_client is not installed.
    """

    needs = ("prometheus_client", "bmsfed[prometheus]")

    def __init__(self, watched: Watched, port: int = 9100, host: str = "127.0.0.1") -> None:
        if fault := package_fault(type(self)):
            raise ValueError(fault)
        from prometheus_client import CollectorRegistry, Counter, Gauge

        self.host, self.port = host, port
        self.registry: Any = CollectorRegistry()
        self._server: Any = None

        def gauge(name: str, about: str, *labels: str) -> Any:
            """Make a number that goes up and down."""
            return Gauge(f"bmsfed_{name}", about, labels, registry=self.registry)

        def counter(name: str, about: str, *labels: str) -> Any:
            """Make a number that sums up, which is served with the ending ``_total``."""
            return Counter(f"bmsfed_{name}", about, labels, registry=self.registry)

        self.round = gauge("round", "Last complete round")
        self.rounds = gauge("rounds", "Rounds that the run is to have")
        self.ended = gauge("round_ended_timestamp_seconds", "When the last round was complete")
        self.metric = gauge("metric", "Metrics of the last evaluated round", "name", "modality")
        self.ratio = gauge("ratio", "Imbalance ratio of the last round", "modality")
        self.clients = gauge("clients", "Clients of the last round", "state")
        self.failures = counter("client_failures", "Answers left out, by client", "client")
        self.bytes = counter("bytes", "Bytes of complete rounds", "direction")
        self.seconds = counter("round_seconds", "Seconds that complete rounds took")

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Begin to serve.

        Raises
        ------
        ValueError
            If the port cannot be listened on.
        """
        from prometheus_client import start_http_server

        try:
            self._server, _ = start_http_server(self.port, self.host, self.registry)
        except OSError as error:
            raise ValueError(
                f"callbacks: prometheus cannot listen on {self.host}:{self.port} "
                f"({error.strerror}): give it another port"
            ) from None
        self.port = self._server.server_port
        self.round.set(strategy.state.round)
        self.rounds.set(num_rounds)

    def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
        """Count the clients asked."""
        if phase == "train":
            self.clients.labels("asked").set(total)

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Set what is of this round, and add what sums up."""
        self.round.set(report.round)
        self.ended.set(time.time())
        for name, value in report.metrics.items():
            for modality, number in (value if isinstance(value, dict) else {"": value}).items():
                if isinstance(number, int | float):
                    self.metric.labels(name, modality).set(number)
        for modality, ratio in report.ratios.items():
            self.ratio.labels(modality).set(ratio)
        for state, of in (
            ("known", strategy.state.clients),
            ("trained", report.trained),
            ("failed", report.failures),
            ("refused", report.refused),
        ):
            self.clients.labels(state).set(len(of))
        for client in report.failures:
            self.failures.labels(client).inc()
        self.bytes.labels("down").inc(report.bytes_down)
        self.bytes.labels("up").inc(report.bytes_up)
        self.seconds.inc(report.seconds)

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        """Serve no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
