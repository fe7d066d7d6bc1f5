"""Reads just enough of PromQL and of /metrics to tell whether what is asked for is exported."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

# Series of Prometheus and of exporters, which no process of ours shows.
FOREIGN = re.compile(r"up|ALERTS|(?:pg|redis|rabbitmq|nginx)_\w+")
# Labels that Prometheus adds, and that of a histogram's buckets.
ADDED_LABELS = frozenset({"job", "instance", "le", "alertname", "alertstate", "severity"})

_TEXTS = re.compile(r'"(?:[^"\\]|\\.)*"')
_RANGES = re.compile(r"\[[^\]]*\]")
_MATCHERS = re.compile(r"\{([^}]*)\}")
_GROUPINGS = re.compile(
    r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", re.IGNORECASE
)
_NAMES = re.compile(r"(?<![\w$.:])([A-Za-z_:][\w:]*)(?!\s*\(|[\w:])")
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})
_SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("", "_count", "_sum")}

Exported = Mapping[str, frozenset[str]]


def names_in(expression: str) -> set[str]:
    """The metrics that an expression asks for."""
    bare = _GROUPINGS.sub("", _MATCHERS.sub("", _RANGES.sub("", _TEXTS.sub("''", expression))))
    return {name for name in _NAMES.findall(bare) if name.lower() not in _WORDS}


def labels_in(expression: str) -> set[str]:
    """The labels that it chooses or groups by."""
    bare = _RANGES.sub("", _TEXTS.sub("''", expression))
    chosen = [re.findall(r"(\w+)\s*[=!]", inside) for inside in _MATCHERS.findall(bare)]
    grouped = [re.findall(r"\w+", inside) for inside in _GROUPINGS.findall(bare)]
    return {label for labels in chosen + grouped for label in labels}


def exported(*texts: str) -> Exported:
    """Series name -> its labels, of what several /metrics show."""
    found: dict[str, set[str]] = defaultdict(set)
    for text in texts:
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
            for suffix in _SUFFIXES.get(kind, ("",)):
                found[name + suffix] |= set()
        for name, labels in re.findall(r"^(\w+)\{(.*)\} \S+$", text, re.MULTILINE):
            found[name] |= set(re.findall(r'(\w+)="', labels))
    return {name: frozenset(labels) for name, labels in found.items()}


def faults(expressions: Iterable[str], known: Exported) -> list[str]:
    """What is asked for and not there. Of series that have no value yet no label is known."""
    wrong = []
    for expression in expressions:
        names = {name for name in names_in(expression) if not FOREIGN.fullmatch(name)}
        wrong += [f"{name} is not exported: {expression}" for name in sorted(names - known.keys())]
        if names and names_in(expression) == names and all(known.get(name) for name in names):
            labels = ADDED_LABELS.union(*(known[name] for name in names))
            unknown = sorted(labels_in(expression) - labels)
            wrong += [f"{label} is no label of {sorted(names)}" for label in unknown]
    return wrong
