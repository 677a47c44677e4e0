"""Prometheus metrics of a process: families made from plain integers at each scrape.

``families.py`` has them all. Label values come from closed sets (reasons of the code, names of limits, regions,
backends), never from clients, keys, addresses or paths. ``docs/metrics.md`` lists every family, and a test compares it
with what a running stack exports.

Times are seconds, sizes bytes. The region that a metric is about is the label ``peer``: ``region`` is the label of
whatever is scraped, set by the scraper.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_LABEL_VALUES = 500
"""Further values of a label are summed up as ``_other``, so that a scrape stays bounded."""
OTHER = "_other"

Part = Callable[[], Iterable[Metric]]
"""Yields the current families of a part; called at each scrape."""


class NodeMetrics(Collector):
    """All parts of one process, in the order added."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def add(self, *parts: Part) -> None:
        """Add functions, each of which yields the families of a part."""
        self._parts.extend(parts)

    def collect(self) -> Iterator[Metric]:
        """All families."""
        for part in self._parts:
            yield from part()

    def render(self) -> bytes:
        """The text of ``/metrics``."""
        return generate_latest(self._registry)


def counter(name: str, help_text: str, value: float) -> Metric:
    """A counter without labels; ``_total`` is added to ``name``."""
    return CounterMetricFamily(name, help_text, value=value)


def counter_by(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A counter by one label. ``values`` must keep the order in which names first came (a dict does)."""
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, count in _bounded(values).items():
        family.add_metric([value], count)
    return family


def gauge(name: str, help_text: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(name, help_text, value=value)


def gauge_by(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A gauge by one label; values beyond the bound are left out, as a sum of gauges is meaningless."""
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for value, level in islice(values.items(), MOST_LABEL_VALUES):
        family.add_metric([value], level)
    return family


def info(name: str, help_text: str, labels: Mapping[str, str]) -> Metric:
    """A gauge that is always 1, with information in its labels."""
    family = GaugeMetricFamily(name, help_text, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


def _bounded(values: Mapping[str, float]) -> Mapping[str, float]:
    """The first names keep their own series, so that no counter falls; later names are summed up."""
    if len(values) <= MOST_LABEL_VALUES:
        return values
    kept = dict(islice(values.items(), MOST_LABEL_VALUES))
    kept[OTHER] = kept.get(OTHER, 0) + sum(islice(values.values(), MOST_LABEL_VALUES, None))
    return kept
