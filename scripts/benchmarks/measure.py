"""Samples of rounds, their medians and spread, the ratios between systems, and the targets.

A *measure* is one thing that is measured (`1 reader, first pass`) in one unit; a *system* is
what it is measured on (`fusefs`, `disk`, …).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

NOISY: Final = 0.30
"""Spread, (max - min) / median, above which a figure carries a caveat."""


@dataclass(frozen=True, slots=True)
class Target:
    """What fusefs should reach in a measure: a multiple of another system's median, or a value."""

    measure: str
    limit: float
    """A factor where `than` names a system, else a value in the measure's unit."""
    than: str = ""
    system: str = "fusefs"
    at_least: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    target: Target
    reached: float
    """The ratio or value that was measured."""
    met: bool

    def __str__(self) -> str:
        target = self.target
        bound = "at least" if target.at_least else "at most"
        what = f"{target.limit:g} x {target.than}" if target.than else f"{target.limit:g}"
        verdict = "met" if self.met else "missed"
        return f"{target.system} {bound} {what}: {format_figure(self.reached)}, {verdict}"


def rotate(systems: Sequence[str], number: int) -> list[str]:
    """Another one first in every round, so that none has always the same predecessor."""
    first = number % len(systems)
    return [*systems[first:], *systems[:first]]


def format_figure(value: float) -> str:
    """Three digits that mean something, and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(slots=True)
class Measure:
    """All samples of one measure, a list for each system, in the order of the rounds."""

    name: str
    unit: str
    samples: dict[str, list[float]] = field(default_factory=dict)

    def median(self, system: str) -> float:
        return statistics.median(self.samples[system])

    def spread(self, system: str) -> float:
        values = self.samples[system]
        middle = statistics.median(values)
        return (max(values) - min(values)) / middle if middle else 0.0

    def rows(self, reference: str) -> Iterator[str]:
        """The table: system, median, range, and the ratio to the reference where it was measured."""
        base = self.median(reference) if reference in self.samples else 0.0
        for system, values in self.samples.items():
            middle = self.median(system)
            low, high = format_figure(min(values)), format_figure(max(values))
            row = f"    {system:<26} {format_figure(middle):>10} {self.unit:<8} {low} to {high}"
            if base and system != reference:
                row += f"  ({format_figure(middle / base)} x {reference})"
            if self.spread(system) > NOISY:
                row += f"  [unsteady: spread {self.spread(system):.0%}]"
            yield row


@dataclass(slots=True)
class Results:
    """What one case found. `reference` is the system that ratios are printed against."""

    case: str
    reference: str
    targets: tuple[Target, ...]
    measures: dict[str, Measure] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, measure: str, unit: str, system: str, value: float) -> None:
        entry = self.measures.setdefault(measure, Measure(measure, unit))
        entry.samples.setdefault(system, []).append(value)

    def verdicts(self) -> Iterator[Verdict]:
        """The targets whose systems were measured."""
        for target in self.targets:
            measure = self.measures.get(target.measure)
            wanted = {target.system, target.than} - {""}
            if measure is None or not wanted <= set(measure.samples):
                continue
            reached = measure.median(target.system)
            if target.than:
                reached /= measure.median(target.than)
            met = reached >= target.limit if target.at_least else reached <= target.limit
            yield Verdict(target, reached, met)

    def lines(self) -> Iterator[str]:
        """The report for people."""
        yield f"\n== {self.case}"
        yield from (f"  {note}" for note in self.notes)
        verdicts = list(self.verdicts())
        for measure in self.measures.values():
            yield f"  {measure.name}"
            yield from measure.rows(self.reference)
            yield from (f"    target: {v}" for v in verdicts if v.target.measure == measure.name)

    def as_json(self) -> dict[str, object]:
        return {
            "case": self.case,
            "notes": self.notes,
            "measures": [
                {
                    "name": measure.name,
                    "unit": measure.unit,
                    "systems": {
                        system: {
                            "median": measure.median(system),
                            "min": min(values),
                            "max": max(values),
                            "samples": values,
                        }
                        for system, values in measure.samples.items()
                    },
                }
                for measure in self.measures.values()
            ],
            "targets": [
                {"measure": v.target.measure, "target": str(v), "reached": v.reached, "met": v.met}
                for v in self.verdicts()
            ],
        }
