"""Serves one process's numbers to Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from distributed.identity import Identity
from replay_server.errors import ConfigError

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


class Exporter:
    """Answers `http://ADDRESS/metrics` from a thread, with the process's own memory, processor and file figures.

    At the loopback address where Ray is this run's alone; on a cluster at the address of the node, on a port the system
    chooses. Who reaches it may read: there is no token, and nothing to change. Needs the package prometheus-client.

    Args:
        identity: of the process.
        numbers: what it shows.

    Raises:
        ConfigError: the package is missing.
    """

    def __init__(self, identity: Identity, numbers: Numbers) -> None:
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
        except ModuleNotFoundError:
            raise ConfigError(
                "run.prometheus: needs the package prometheus-client; pip install 'headrace[metrics]'"
            ) from None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(numbers))
        ProcessCollector(registry=registry)
        self._server, self._thread = start_http_server(0, identity.host, registry)
        self.address = f"{identity.host}:{self._server.server_port}"

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def served_at(identity: Identity, numbers: Numbers) -> str | None:
    """HOST:PORT where Prometheus finds a process's numbers until it ends; None where the run does not want them."""
    return Exporter(identity, numbers).address if identity.prometheus else None


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
