"""Plots as data, and as SVG.

A program says what is to be drawn, and never draws: so a result can be kept as JSON and drawn anew.
The SVG is the same for the same numbers (no date, no random ids), and its text stays text.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import TypeAdapter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#2f6f9f", "#d98032", "#5b8c5a", "#a05195", "#7a7a7a")
_INCHES = (7.2, 3.6)


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One bar for each of a few things, lying, so that their names can be sentences."""

    name: str
    """Of the file, without its ending."""
    title: str
    unit: str
    bars: tuple[tuple[str, float], ...]
    """Label and length, from the top."""
    style: Literal["bars"] = "bars"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a plot."""

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Lines over one axis: how something grows."""

    name: str
    title: str
    x: str
    """What lies along, with its unit."""
    y: str
    lines: tuple[Line, ...]
    log_x: bool = False
    log_y: bool = False
    style: Literal["lines"] = "lines"


Plot: TypeAlias = Bars | Lines
PLOTS: TypeAdapter[tuple[Plot, ...]] = TypeAdapter(tuple[Plot, ...])
"""To JSON and back."""


def draw(plot: Plot, folder: Path) -> Path:
    """Write ``NAME.svg`` into ``folder``; says where."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    # Text stays text, and the ids are made from the plot's name instead of at random.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.name}):
        canvas = Canvas(figsize=_INCHES, layout="constrained")
        axes = canvas.subplots()
        axes.set_title(plot.title, loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        match plot:
            case Bars():
                _bars(plot, axes)
            case Lines():
                _lines(plot, axes)
        drawn = io.StringIO()
        canvas.savefig(drawn, format="svg", metadata={"Date": None})
    file = folder / f"{plot.name}.svg"
    # matplotlib ends lines with spaces here and there, which every later diff would show.
    lines = (line.rstrip() for line in drawn.getvalue().splitlines())
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _bars(plot: Bars, axes: "Axes") -> None:
    labels = [label for label, _ in plot.bars]
    lengths = [length for _, length in plot.bars]
    drawn = axes.barh(range(len(labels)), lengths, color=_COLOURS[0], height=0.6)
    axes.bar_label(drawn, labels=[_label(length) for length in lengths], padding=4, fontsize=9)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel(plot.unit)
    axes.xaxis.set_major_formatter("{x:,g}")


def _label(length: float) -> str:
    return f"{length:,.0f}" if length >= 1000 else f"{length:.4g}"


def _lines(plot: Lines, axes: "Axes") -> None:
    for line, colour in zip(plot.lines, _cycled(len(plot.lines)), strict=True):
        along, up = zip(*line.points, strict=True)
        axes.plot(along, up, marker="o", markersize=4, color=colour, label=line.label)
    if plot.log_x:
        axes.set_xscale("log")
    if plot.log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)


def _cycled(count: int) -> list[str]:
    return [_COLOURS[number % len(_COLOURS)] for number in range(count)]
