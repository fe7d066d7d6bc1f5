"""The metrics and labels that PromQL expressions use, and whether /metrics exports them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

import promql_parser
from prometheus_client.parser import text_string_to_metric_families

# Series of Prometheus and of exporters. transferd does not export them.
FOREIGN = re.compile(r"up|ALERTS|(?:pg|redis|rabbitmq|nginx)_\w+")
# Labels that Prometheus adds, and `le` of a histogram's buckets.
ADDED_LABELS = frozenset({"job", "instance", "le", "alertname", "alertstate", "severity"})

_SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("", "_count", "_sum"),
}

Exported = Mapping[str, frozenset[str]]


def names_and_labels(expression: str) -> tuple[set[str], set[str]]:
    """The metrics that an expression selects, and the labels that it matches or groups by."""
    names: set[str] = set()
    labels: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            names.add(node.name or "")
            labels.update(matcher.name for matcher in node.matchers.matchers)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            labels.update(node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None:
            matching = node.modifier.matching
            labels.update(matching.labels if matching else (), node.modifier.group_labels or ())

    # Grafana replaces its duration variables before it sends the expression.
    sent = re.sub(r"\$__\w+", "5m", expression)
    promql_parser.walk(promql_parser.parse(sent), visit)
    return names, labels


def names_in(expression: str) -> set[str]:
    """The metrics that an expression selects."""
    return names_and_labels(expression)[0]


def exported(*texts: str) -> Exported:
    """The labels of each series in these answers of /metrics."""
    found: dict[str, set[str]] = defaultdict(set)
    for text in texts:
        for family in text_string_to_metric_families(text):
            for suffix in _SUFFIXES.get(family.type, ("",)):
                found[family.name + suffix] |= set()
            for sample in family.samples:
                found[sample.name] |= sample.labels.keys()
    return {name: frozenset(labels) for name, labels in found.items()}


def faults(expressions: Iterable[str], known: Exported) -> list[str]:
    """The metrics and labels that are used but not exported.

    Labels are checked only if transferd exports all metrics of the expression, with samples.
    """
    wrong = []
    for expression in expressions:
        selected, used = names_and_labels(expression)
        names = {name for name in selected if not FOREIGN.fullmatch(name)}
        wrong += [f"{name} is not exported: {expression}" for name in sorted(names - known.keys())]
        if names and selected == names and all(known.get(name) for name in names):
            labels = ADDED_LABELS.union(*(known[name] for name in names))
            wrong += [f"{label} is no label of {sorted(names)}" for label in sorted(used - labels)]
    return wrong
