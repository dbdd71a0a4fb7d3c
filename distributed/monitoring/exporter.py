"""Serves one process's numbers to Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from distributed.identity import Identity
from replay_server.metrics import MetricsEndpoint

if TYPE_CHECKING:
    from prometheus_client.core import Metric


@dataclass(frozen=True)
class Number:
    """One metric at this moment.

    Attributes:
        name: after `headrace_`; a counter's ends in `_total`.
        text: what it means, with its unit.
        value: the number; or numbers by the value of `label`. None: not known yet.
        label: name of the label, where there are several.
    """

    name: str
    text: str
    value: float | Mapping[str, float] | None
    label: str = ""


class Numbers(Protocol):
    """What a process counts; asked at a scrape, from another thread."""

    def numbers(self) -> Iterator[Number]: ...


def endpoint(identity: Identity, numbers: Numbers) -> MetricsEndpoint:
    """Answers `http://ADDRESS/metrics` with the numbers of a process.

    At the loopback address where all processes are on this machine; on a cluster at the address of the node, on a port
    the system chooses. Who reaches it may read: there is no token, and nothing to change.

    Raises:
        ConfigError: the package prometheus-client is missing.
    """
    return MetricsEndpoint(_Collector(numbers), 0, identity.host, "run.prometheus")


def served_at(identity: Identity, numbers: Numbers) -> str | None:
    """HOST:PORT where Prometheus finds a process's numbers until it ends; None where the run does not want them."""
    return endpoint(identity, numbers).address if identity.prometheus else None


class _Collector:
    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for number in self._numbers.numbers():
            kind = CounterMetricFamily if number.name.endswith("_total") else GaugeMetricFamily
            labels = [number.label] if number.label else []
            family = kind(f"headrace_{number.name}", number.text, labels=labels)
            values = number.value if isinstance(number.value, Mapping) else {"": number.value}
            for label, value in values.items():
                if value is not None:
                    family.add_metric([label] if labels else [], value)
            yield family
