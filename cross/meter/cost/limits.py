"""Compares a report with the limits in `cross/cost-limits.json`."""

import json
from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / "cost-limits.json"


def check(report):
    """[{what, value, at_most, holds}] of the limits whose target and payload were measured."""
    results = []
    for limit in json.loads(FILE.read_text()):
        entry = report.get(limit["target"], {}).get(str(limit["payload"]))
        if entry is None:
            continue
        value = _value(limit["value"], entry)
        results.append({"what": limit["what"], "value": value, "at_most": limit["at_most"],
                        "holds": value <= limit["at_most"]})
    return results


def _value(text, entry):
    """A field, or two joined by `/` or `-`."""
    first, *rest = text.split()
    value = entry[first]
    if rest:
        operator, second = rest
        value = value / entry[second] if operator == "/" else value - entry[second]
    return round(value, 4)
