"""Charts as values: what is drawn, apart from how; a page draws them as SVG, `harness figures` by matplotlib.

`harness.report.pictures` makes them from the rows of the tables, so that their numbers are those of every other format.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.api import JsonValue

_LOGARITHMIC = 20
"""Largest over smallest value, beyond which the axis of positive metrics is logarithmic."""


class Point(NamedTuple):
    """A value with its interval.

    Args:
        half: half the width of the interval around `y`; None where there is none.
        name: what the point is, in words.
        mark: a sign beside it.
        is_dominated: whether another point of the panel is better in one way and no worse in the other, or the point
            itself is of something that cannot be built.
    """

    x: float
    y: float
    half: float | None = None
    name: str = ""
    is_dominated: bool = False
    mark: str = ""


class Style(NamedTuple):
    """How a series is told apart: its place among those of its chart, and what the legend calls it."""

    place: int
    name: str


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Args:
        colour: tells patterns apart, mostly.
        shape: of markers; a legend names it where it is not the colour's.
        dash: of lines, as `shape`.
        joined: whether a line goes through the points.
        marked: whether each has a marker.
    """

    name: str
    points: tuple[Point, ...]
    colour: Style
    shape: Style | None = None
    dash: Style | None = None
    joined: bool = True
    marked: bool = True


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Args:
        x: what stands along the horizontal axis, where it is another than the chart's.
        levels: horizontal lines by name; events: vertical ones; strokes: short ones on the axis, too many for names.
        names: of the places 0, 1, ... of an axis that has no numbers.
        is_log_x: whether the horizontal axis is logarithmic.
    """

    title: str
    series: tuple[Series, ...]
    x: str = ""
    levels: tuple[tuple[str, float], ...] = ()
    events: tuple[tuple[str, float], ...] = ()
    strokes: tuple[tuple[str, float], ...] = ()
    names: tuple[str, ...] = ()
    is_log_x: bool = False

    @property
    def points(self) -> Iterator[Point]:
        """All points."""
        return (point for series in self.series for point in series.points)


@dataclass(frozen=True)
class Chart:
    """A picture of several panels with one vertical axis.

    Args:
        name: short, for files; title: for people; about: how it is read, in sentences.
        x, y: what stands along the axes, with units.
        dodged: whether neighbours are moved apart so that their intervals do not hide each other.
    """

    name: str
    title: str
    x: str
    y: str
    panels: tuple[Panel, ...]
    about: tuple[str, ...] = ()
    dodged: bool = False

    @property
    def is_log_y(self) -> bool:
        """Whether the vertical axis is logarithmic."""
        return is_wide([point.y for panel in self.panels for point in panel.points], _LOGARITHMIC)

    def data(self) -> list[dict[str, JsonValue]]:
        """What is drawn as rows, unrounded: for CSV."""
        rows: list[dict[str, JsonValue]] = []
        for panel in self.panels:
            x = panel.x or self.x
            rows += [
                {
                    "panel": panel.title,
                    "series": series.name,
                    "point": point.name,
                    x: panel.names[int(point.x)] if panel.names else point.x,
                    self.y: point.y,
                    "half_interval": point.half,
                    "dominated": point.is_dominated,
                }
                for series in panel.series
                for point in series.points
            ]
            rows += [
                {"panel": panel.title, "series": "event", "point": name, x: place, self.y: None}
                for name, place in (*panel.events, *panel.strokes)
            ]
        return rows


@dataclass(frozen=True)
class Raster:
    """Matrices of fractions as shades, one panel each: where a mask keeps weights.

    Args:
        name, title, about: as a chart's.
        panels: a title and rows of fractions in [0, 1], 1 for all kept.
    """

    name: str
    title: str
    panels: tuple[tuple[str, tuple[tuple[float, ...], ...]], ...]
    about: tuple[str, ...] = ()

    def data(self) -> list[dict[str, JsonValue]]:
        """What is drawn as rows."""
        return [
            {"panel": title, "row": row, "column": column, "kept": kept}
            for title, rows in self.panels
            for row, values in enumerate(rows)
            for column, kept in enumerate(values)
        ]


OTHERS = "others"
"""What parts without a colour of their own are called."""


@dataclass(frozen=True)
class Bar:
    """One bar made of parts, by name, in the order of the chart's parts."""

    name: str
    parts: tuple[tuple[str, float], ...]
    mark: str = ""

    @property
    def length(self) -> float:
        """Of all parts."""
        return sum(value for _, value in self.parts)


@dataclass(frozen=True)
class Bars:
    """Stacked horizontal bars, one panel below the other, on one axis each.

    Args:
        name, title, about: as a chart's.
        x: what their length is, with its unit.
        panels: a title and bars.
    """

    name: str
    title: str
    x: str
    panels: tuple[tuple[str, tuple[Bar, ...]], ...]
    about: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of all parts, in the order met, `others` last: each has one colour."""
        met = dict.fromkeys(name for _, bars in self.panels for bar in bars for name, value in bar.parts if value)
        return tuple(sorted(met, key=lambda name: name == OTHERS))

    def data(self) -> list[dict[str, JsonValue]]:
        """What is drawn as rows."""
        return [
            {"panel": title, "bar": bar.name, "part": part, self.x: value}
            for title, bars in self.panels
            for bar in bars
            for part, value in bar.parts
        ]


Picture = Chart | Raster | Bars
"""Whatever can be drawn."""


def is_wide(values: Sequence[float], most: float) -> bool:
    """Whether these values need a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > most
