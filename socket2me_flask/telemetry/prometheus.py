"""The metrics: reads what the parts of the relay have counted, and writes it as Prometheus does.

Nothing here runs until a scrape: the parts count in plain integers. The names of the metrics are here only.
"""

import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.exposition import generate_latest

from socket2me import __version__

from ..errors import RelayError, StoreUnavailable
from ..services import Services
from .histogram import Histogram

__all__ = ["CONTENT_TYPE", "render"]

_NAMESPACE = "socket2me_"


def render(services: Services) -> bytes:
    """Return all metrics as text. Other green threads run between any two of them."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Collector(services))
    return generate_latest(registry)


class _Collector:
    """Makes the metrics of one relay."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> Iterable[Metric]:
        """Say nothing: otherwise all is collected when this is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        for metric in chain(self._counters(), self._histograms(), self._gauges()):
            yield metric
            self._services.scheduler.yield_to_others()

    def _counters(self) -> Iterator[Metric]:
        services = self._services
        relay, sockets = services.relay, services.sockets
        calls = dict(services.forwarder.calls)
        calls["draining"] += services.gateway.calls_refused
        yield _counter("calls", "Calls to /v1/go and /go, by outcome.", _labelled(calls), ["outcome"])
        yield _counter(
            "connects",
            "Connects of clients to tokens, by version of Engine.IO and result.",
            sockets.connects,
            ["protocol", "result"],
        )
        yield _counter(
            "disconnects", "Clients that were disconnected, by reason.", _labelled(sockets.disconnects), ["reason"]
        )
        streams = services.streams
        yield _counter("streams_opened", "Streams of channels that were opened.", {(): streams.opened})
        yield _counter(
            "streams_ended", "Streams of channels that ended, by reason.", _labelled(streams.ended), ["reason"]
        )
        limits = Counter(dict.fromkeys(_LIMITS, 0))
        limits.update(services.answers.limits_reached)
        redelivered = dead_lettered = 0
        if relay.mailboxes is not None:
            attempts = relay.mailboxes.attempts
            redelivered, dead_lettered = attempts.redelivered, sum(attempts.dead_lettered.values())
            limits.update(attempts.dead_lettered)
            limits["MAILBOX_MAX_AGE_SECONDS"] += relay.mailboxes.aged_out
            limits["SOCKET2ME_LISTENER_TTL_SECONDS"] += relay.mailboxes.listeners_forgotten
        yield _counter("redelivered", "Events of mailboxes that were sent again.", {(): redelivered})
        yield _counter("dead_lettered", "Events of mailboxes that became dead letters.", {(): dead_lettered})
        yield _counter("tokens_issued", "Tokens that were issued.", {(): relay.tokens_issued})
        yield _counter(
            "tokens_expired", "Tokens that were removed since they had expired.", {(): relay.tokens_expired}
        )
        history = services.store.history
        yield _counter(
            "history_dropped",
            "Calls that were dropped from histories for a bound, by this process.",
            {(): history.dropped},
        )
        yield _counter(
            "history_lost",
            "Writes to histories that failed, or found no room, at this process.",
            {(): history.lost},
        )
        yield _counter(
            "limit_reached", "How often a limit was reached, by its setting.", _labelled(limits), ["setting"]
        )
        yield _counter(
            "signature_failures",
            "Calls whose signature was not accepted, by provider and reason.",
            services.verification.failures.copy(),
            ["provider", "reason"],
        )
        yield _counter(
            "storage_damaged",
            "Starts at which the log of the database was found to be damaged.",
            {(): services.store.damaged},
        )

    def _histograms(self) -> Iterator[Metric]:
        services = self._services
        yield _histogram(
            "call_seconds", "Seconds from the head of a call to its answer.", services.forwarder.call_seconds
        )
        yield _histogram(
            "ack_seconds",
            "Seconds from when an event was queued for its client to its acknowledgement.",
            services.sockets.ack_seconds,
        )

    def _gauges(self) -> Iterator[Metric]:
        services = self._services
        relay, engine = services.relay, services.sockets.engine
        yield _gauge("clients", "Clients that are attached to a token, at this process.", len(relay.presence))
        yield _gauge("streams", "Streams of channels that are open, at this process.", len(services.streams))
        yield _gauge(
            "held_calls", "Calls that wait for a client, at this process.", relay.presence.held.requests.used
        )
        yield _gauge(
            "queued_bytes", "Bytes that wait for clients to read them, at this process.", engine.queued.used
        )
        yield _gauge("draining", "1 while the process drains.", int(services.lifecycle.is_draining))
        build = GaugeMetricFamily(
            _NAMESPACE + "build_info", "The version of the relay and of Python.", labels=["version", "python"]
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        yield from self._store_gauges()

    def _store_gauges(self) -> Iterator[Metric]:
        """Yield what the store holds. While it does not answer, these have no samples."""
        try:
            totals = self._services.store.totals()
            oldest = totals.oldest_waiting_at
            age = 0.0 if oldest is None else max(0.0, time.time() - oldest)
            values: tuple[float | None, ...] = (totals.tokens, totals.events, totals.bytes, age)
        except StoreUnavailable:
            values = (None, None, None, None)
        names = (
            ("tokens", "Tokens in the store."),
            ("mailbox_events", "Events in all mailboxes, dead letters too."),
            ("mailbox_bytes", "Bytes of the events in all mailboxes."),
            (
                "oldest_waiting_event_age_seconds",
                "How long the oldest event that is no dead letter has been in its mailbox; 0 if there is none.",
            ),
        )
        for (name, meaning), value in zip(names, values, strict=True):
            yield _gauge(name, meaning, value)


def _limits(kind: type[RelayError]) -> Iterator[str]:
    """Yield the limits that errors name, so that each has a series before it is reached."""
    if kind.setting is not None:
        yield kind.setting
    for narrower in kind.__subclasses__():
        yield from _limits(narrower)


_LIMITS = sorted(
    {
        *_limits(RelayError),
        "SOCKET2ME_LISTENER_TTL_SECONDS",
        "MAILBOX_MAX_AGE_SECONDS",
        "SOCKET2ME_MAX_ATTEMPTS",
        "MAX_EVENT_ANSWERS",
        "RATE_LIMIT_EVENTS",
        "SOCKET2ME_RATE_LIMIT_NEW",
        "SOCKET2ME_RATE_LIMIT_REQUESTS",
    }
)


def _labelled(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(label,): count for label, count in counts.items()}


def _counter(name: str, meaning: str, counts: Mapping[Any, int], labels: Iterable[str] = ()) -> Metric:
    family = CounterMetricFamily(_NAMESPACE + name, meaning, labels=list(labels))
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def _gauge(name: str, meaning: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(_NAMESPACE + name, meaning)
    if value is not None:
        family.add_metric([], value)
    return family


def _histogram(name: str, meaning: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(_NAMESPACE + name, meaning)
    family.add_metric([], list(histogram.buckets()), histogram.total_seconds)
    return family
