"""Writes down what was measured: a table for people, JSON for programs, and a plot where matplotlib is installed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import machine


class Row(NamedTuple):
    """One scenario: medians of both sides in one unit, and what is asked of the ratio (0: nothing)."""

    scenario: str
    unit: str
    ours: float
    theirs: float
    num_rounds: int
    target: float = 0.0
    roofline: float = 0.0
    """The most the machine could do, in the same unit; 0: not known."""

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.ours / self.theirs if self.theirs else 0.0

    @property
    def verdict(self) -> str:
        """Whether the target is met, in a word."""
        if not self.target:
            return ""
        return "met" if self.ratio >= self.target else "MISSED"


def median(values: Sequence[float]) -> float:
    """The median; 0 of nothing."""
    return statistics.median(values) if values else 0.0


def table(rows: Sequence[Row], ours: str, theirs: str) -> str:
    """The rows as Markdown."""
    lines = [
        f"| scenario | unit | {ours} | {theirs} | ratio | target | | rounds | roofline |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = f"{row.target:.2f}x" if row.target else ""
        roofline = f"{row.roofline:,.0f}" if row.roofline else ""
        cells = (row.scenario, row.unit, _number(row.ours), _number(row.theirs), f"{row.ratio:.2f}x", target)
        lines.append("| " + " | ".join((*cells, row.verdict, str(row.num_rounds), roofline)) + " |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(folder: Path, name: str, title: str, text: str, facts: dict[str, Any]) -> None:
    """Write NAME.json and NAME.md; safe to call after each step, so that a run that is cut off still tells."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {"title": title, "versions": machine.versions()} | facts
    (folder / f"{name}.json").write_text(json.dumps(known, indent=1))
    stack = ", ".join(f"{package} {number}" for package, number in machine.versions().items())
    about = facts.get("machine", {}).get("device", {})
    device = ", ".join(f"{key} {value}" for key, value in about.items())
    (folder / f"{name}.md").write_text(f"# {title}\n\n{stack}\n\n{device}\n\n{text}\n")


def plot_rows(file: Path, title: str, rows: Sequence[Row], ours: str, theirs: str) -> bool:
    """Draw each scenario's two medians as bars, and its roofline as a line; False without matplotlib."""
    drawing = _drawing()
    if drawing is None:
        return False
    figure, axes = drawing.subplots(figsize=(1.6 + 1.3 * len(rows), 4.5))
    for place, row in enumerate(rows):
        axes.bar(place - 0.2, row.ours, 0.38, color="#1f6f8b", label=ours if place == 0 else None)
        axes.bar(place + 0.2, row.theirs, 0.38, color="#c9c9c9", label=theirs if place == 0 else None)
        axes.annotate(f"{row.ratio:.2f}x", (place, max(row.ours, row.theirs)), ha="center", va="bottom")
        if row.roofline:
            axes.hlines(row.roofline, place - 0.42, place + 0.42, color="#b3541e", linestyles="dashed")
    axes.set_yscale("log")
    axes.set_xticks(range(len(rows)), [row.scenario for row in rows], rotation=20, ha="right")
    axes.set_ylabel(rows[0].unit if rows else "")
    axes.set_title(f"{title} (dashed: roofline)")
    axes.legend()
    return _saved(figure, file)


def plot_lines(
    file: Path, title: str, lines: dict[str, Sequence[float]], *, x_label: str, y_label: str, y_from_zero: bool = True
) -> bool:
    """Draw each series over its place in it; False without matplotlib."""
    drawing = _drawing()
    if drawing is None:
        return False
    figure, axes = drawing.subplots(figsize=(8, 4.5))
    for label, values in lines.items():
        axes.plot(range(1, len(values) + 1), values, label=label)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if y_from_zero:
        axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.legend()
    return _saved(figure, file)


def _drawing() -> Any:
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra that not everyone installs
    except ImportError:
        print("no plot: `make setup EXTRAS=bench` brings matplotlib")
        return None
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - needs the backend chosen first

    return plt


def _saved(figure: Any, file: Path) -> bool:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    return True
