"""A chart as SVG text: no library, no script, nothing from outside; text and axes take the colour of the page.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; markers and dashes tell the same again, for
prints in grey.
"""

import html
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness._text import figure, lines
from harness.report.charts import Bar, Bars, Chart, Panel, Picture, Point, Raster, Series, Style

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8b5a9f", "#7a7a7a")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "12 4")
# Around (0, 0), of about equal area.
MARKERS = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
    "M-3.2-3.2h6.4v6.4h-6.4z",
    "M0-4.4L4.2 3.2H-4.2z",
    "M0-4.6L4.6 0L0 4.6L-4.6 0z",
    "M0 4.4L4.2-3.2H-4.2z",
    "M-1.4-4.2h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z",
    "M0-4.6L1.3-1.4L4.6-1.4L2 .8L3 4.2L0 2.2L-3 4.2L-2 .8L-4.6-1.4L-1.3-1.4z",
)

_WIDTH, _HEIGHT = 340, 250  # of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 24, 44
_ACROSS = 3  # panels in a row
_LINE = 17  # of the legend
_LETTER = 6.3  # mean width of a letter of 11 pixels
_CROWD = 1500
"""Points of a chart, beyond which they have no words and no intervals, so that a page stays light."""

_DODGE = 4  # pixels between neighbours

_SHADES = 8  # of a raster

_STROKE = 8  # height of one on the axis

_MOST = 1e300
"""The largest number on an axis."""

_MOST_POWERS = 12  # of ten, on a logarithmic axis

# Words on top of lines stay readable.
_HALO = ' paint-order="stroke" stroke="var(--back,#fff)" stroke-width="3" stroke-linejoin="round"'


def escape(text: str) -> str:
    """A text of somebody else's as XML can hold it: there are characters that it has no way to write."""
    return html.escape(lines(text))


def text(chart: Picture, *, label: str = "") -> str:
    """The chart as one `svg` element.

    Args:
        chart: what is drawn.
        label: id of an element that describes it; by default it carries its own title.
    """
    if isinstance(chart, Raster):
        return _raster(chart, label)
    if isinstance(chart, Bars):
        return _bars(chart, label)
    across = min(_ACROSS, len(chart.panels))
    rows = math.ceil(len(chart.panels) / across)
    legend = list(_legend(chart, across * _WIDTH))
    height = rows * _HEIGHT + _LINE * (1 + max((row for row, _, _ in legend), default=-1)) + 6
    named = f'aria-labelledby="{label}"' if label else f'aria-label="{escape(chart.title)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across * _WIDTH} {height}" role="img" {named} '
        f'width="{across * _WIDTH}" font-family="system-ui, sans-serif" font-size="11" fill="none">'
    ]
    # One vertical axis for all panels: they are read side by side.
    axis = _axis([y for panel in chart.panels for y in _ys(panel)], is_log=chart.is_log_y)
    for number, panel in enumerate(chart.panels):
        x, y = number % across * _WIDTH, number // across * _HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{"".join(_panel(chart, panel, axis))}</g>')
    parts.append(f'<g transform="translate(0 {rows * _HEIGHT})">')
    parts += [f'<g transform="translate({x:.0f} {row * _LINE + 10})">{drawn}</g>' for row, x, drawn in legend]
    return "".join([*parts, "</g></svg>"])


def _raster(raster: Raster, label: str) -> str:
    named = f'aria-labelledby="{label}"' if label else f'aria-label="{escape(raster.title)}"'
    across = min(_ACROSS, len(raster.panels))
    down = math.ceil(len(raster.panels) / across)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across * _WIDTH} {down * _WIDTH}" role="img" {named} '
        f'width="{across * _WIDTH}" font-family="system-ui, sans-serif" font-size="11" shape-rendering="crispEdges">'
    ]
    for number, (title, rows) in enumerate(raster.panels):
        side = (_WIDTH - 2 * _TOP) / max(len(rows), len(rows[0]))
        x, y = number % across * _WIDTH + _RIGHT, number // across * _WIDTH
        parts.append(f'<g transform="translate({x} {y})"><text y="14" fill="currentColor">{escape(title)}</text>')
        wide, high = side * len(rows[0]), side * len(rows)
        parts.append(f'<path d="M0 {_TOP}h{wide:.1f}v{high:.1f}H0z" fill="currentColor" opacity=".07"/>')
        shades: dict[int, list[str]] = {}
        for row, values in enumerate(rows):
            for column, kept in enumerate(values):
                # A few shades, so that cells of one shade are a single path.
                shades.setdefault(math.ceil(kept * _SHADES), []).append(
                    f"M{column * side:.1f} {_TOP + row * side:.1f}h{side:.1f}v{side:.1f}h-{side:.1f}z"
                )
        for shade, places in sorted(shades.items()):
            if shade:
                parts.append(f'<path d="{"".join(places)}" fill="{COLOURS[0]}" opacity="{shade / _SHADES:g}"/>')
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


_BARS_WIDE, _BAR, _BAR_NAMES = 2 * _WIDTH, 18, 170
"""Width of a picture of bars, height of one, and room for their names."""


def _bars(chart: Bars, label: str) -> str:
    named = f'aria-labelledby="{label}"' if label else f'aria-label="{escape(chart.title)}"'
    drawn, y = [], 0
    for title, bars in chart.panels:
        drawn.append(f'<g transform="translate(0 {y})">{"".join(_bar_panel(chart, title, bars))}</g>')
        y += _TOP + len(bars) * _BAR + 34
    row, x = 0, float(_BAR_NAMES)
    for place, part in enumerate(chart.parts):
        needed = 34 + len(part) * _LETTER
        if x + needed > _BARS_WIDE and x > _BAR_NAMES:
            row, x = row + 1, float(_BAR_NAMES)
        drawn.append(
            f'<g transform="translate({x:.0f} {y + row * _LINE + 10})"><path d="M-7-3.5h14v7h-14z" '
            f'fill="{_part_colour(place)}"/><text x="12" y="4" fill="currentColor">{escape(part)}</text></g>'
        )
        x += needed
    height = y + (row + 1) * _LINE + 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_BARS_WIDE} {height}" role="img" {named} '
        f'width="{_BARS_WIDE}" font-family="system-ui, sans-serif" font-size="11" fill="none">{"".join(drawn)}</svg>'
    )


def _bar_panel(chart: Bars, title: str, bars: Sequence[Bar]) -> Iterator[str]:
    wide, longest = _BARS_WIDE - _BAR_NAMES - 60, max((bar.length for bar in bars), default=0.0) or 1.0
    places = {part: place for place, part in enumerate(chart.parts)}
    yield f'<text y="14" font-weight="600" fill="currentColor">{escape(title)}</text>'
    for number, bar in enumerate(bars):
        y, x = _TOP + number * _BAR, float(_BAR_NAMES)
        name = bar.name if len(bar.name) * _LETTER < _BAR_NAMES - 8 else f"{bar.name[: int(_BAR_NAMES / _LETTER) - 3]}…"
        yield f'<text x="{_BAR_NAMES - 6}" y="{y + 12}" text-anchor="end" fill="currentColor">{escape(name)}</text>'
        for part, value in bar.parts:
            if value > 0:
                long = value / longest * wide
                words = f"{bar.name}: {part} {value:,.6g} of {bar.length:,.6g}"
                yield (
                    f'<path d="M{x:.1f} {y}h{long:.2f}v{_BAR - 4}h-{long:.2f}z" fill="{_part_colour(places[part])}">'
                    f"<title>{escape(words)}</title></path>"
                )
                x += long
        yield f'<text x="{x + 5:.1f}" y="{y + 12}" fill="currentColor">{figure(bar.length)}{escape(bar.mark)}</text>'
    yield (
        f'<text x="{_BAR_NAMES + wide / 2:.0f}" y="{_TOP + len(bars) * _BAR + 14}" text-anchor="middle" '
        f'fill="currentColor">{escape(chart.x)}</text>'
    )


def _part_colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def file(charts: Sequence[Picture]) -> str:
    """A file of its own: the pictures one below the other with their titles, on white."""
    drawn, y, wide = [], 8, 2 * _WIDTH
    for chart in charts:
        picture = text(chart)
        found = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', picture)
        assert found is not None  # `text` writes it
        wide = max(wide, math.ceil(float(found[1])))
        drawn.append(
            f'<text x="8" y="{y + 14}" font-size="14" font-weight="600" fill="#222">{escape(chart.title)}</text>'
            f'<svg x="8" y="{y + 26}" height="{found[2]}"{picture.removeprefix("<svg")}'
        )
        y += 26 + math.ceil(float(found[2])) + 14
        for line in textwrap.wrap(" ".join(chart.about), 110):
            drawn.append(f'<text x="8" y="{y}" font-size="10" fill="#555">{escape(line)}</text>')
            y += 13
        y += 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide + 16} {y}" width="{wide + 16}" height="{y}" '
        f'font-family="system-ui, sans-serif" color="#222"><path d="M0 0h{wide + 16}v{y}H0z" fill="#fff"/>'
        f"{''.join(drawn)}</svg>\n"
    )


# --- axes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    """From values to parts of its length, with its ticks."""

    low: float
    high: float
    is_log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """0 at the beginning, 1 at the end."""
        value = _drawable(value)
        if self.is_log:  # differences of logarithms: quotients of numbers may overflow
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


def _drawable(value: float) -> float:
    """A value, or the largest whose differences are still numbers."""
    return max(-_MOST, min(_MOST, value))


def _axis(values: Sequence[float], *, is_log: bool) -> _Axis:
    low, high = (_drawable(min(values)), _drawable(max(values))) if values else (0.0, 1.0)
    if is_log and low > 0:
        # By a part of what it spans: a marker at the end of decades would be cut in half.
        room = max(1.1, (high / low) ** 0.04) if high / low < _MOST else 1.1
        low, high = low / room, high * room
        steps = (1, 2, 5) if high / low < 1e3 else (1,)
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        # Every power as long as there are few; then every second, third, ...
        powers = range(first, last + 1, 1 + (last - first) // _MOST_POWERS)
        ticks = (step * 10.0**power for power in powers for step in steps)
        return _Axis(low, high, True, tuple(tick for tick in ticks if low <= tick <= high))
    # A flat series gets room by its own size, an empty one by one.
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = low - room, high + room
    step = _step((high - low) / 4)
    first = math.ceil(low / step)
    count = math.floor(high / step) - first + 1
    # Counted from a whole number of steps: adding a step over and over would drift.
    return _Axis(low, high, False, tuple(round((first + place) * step, 12) for place in range(count)))


def _step(rough: float) -> float:
    """A round number of about this size."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor for factor in (1, 2, 2.5, 5, 10) if rough <= factor * power * 1.0001) * power


def _ys(panel: Panel) -> Iterator[float]:
    for point in panel.points:
        half = point.half or 0.0
        yield from (point.y - half, point.y + half) if half else (point.y,)
    yield from (level for _, level in panel.levels)


def _short(value: float) -> str:
    if abs(value) >= 1e4:
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.4g}{letter}"
    return f"{value:.6g}"


# --- a panel --------------------------------------------------------------------------------------------------------


def _panel(chart: Chart, panel: Panel, ys: _Axis) -> Iterator[str]:
    xs = [point.x for point in panel.points] + [x for _, x in (*panel.events, *panel.strokes)]
    along = _axis([-0.5, len(panel.names) - 0.5], is_log=False) if panel.names else _axis(xs, is_log=panel.is_log_x)
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(value: float) -> float:
        return _LEFT + along.at(value) * wide

    def y(value: float) -> float:
        return _TOP + (1 - ys.at(value)) * high

    yield f'<text x="{_LEFT}" y="14" font-weight="600" fill="currentColor">{_fitted(panel.title, wide)}</text>'
    yield from _frame(along, ys, panel, (x, y))
    yield (
        f'<text x="{_LEFT + wide / 2:.0f}" y="{_HEIGHT - 8}" text-anchor="middle" fill="currentColor">'
        f"{escape(panel.x or chart.x)}</text>"
        f'<text transform="translate(12 {_TOP + high / 2:.0f}) rotate(-90)" text-anchor="middle" '
        f'fill="currentColor">{escape(chart.y)}</text>'
    )
    is_crowded = sum(len(series.points) for each in chart.panels for series in each.series) > _CROWD
    for place, series in enumerate(panel.series):
        moved = (place - (len(panel.series) - 1) / 2) * _DODGE if chart.dodged and len(panel.series) < 9 else 0.0
        yield from _series(series, [(x(p.x) + moved, y(p.y), p) for p in series.points], y, is_crowded=is_crowded)
    # Last, so that words stand on top of lines.
    yield from _lines(panel, x, y)


def _lines(panel: Panel, x: Callable[[float], float], y: Callable[[float], float]) -> Iterator[str]:
    """Levels, events and strokes."""
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    for name, level in panel.levels:
        yield (
            f'<path d="M{_LEFT} {y(level):.1f}h{wide}" stroke="currentColor" stroke-dasharray="2 2" opacity=".7"/>'
            f'<text x="{_WIDTH - _RIGHT - 2}" y="{y(level) - 3:.1f}" text-anchor="end" font-size="10" '
            f'fill="currentColor"{_HALO}>{escape(name)}</text>'
        )
    for name, place in panel.events:
        yield f'<path d="M{x(place):.1f} {_TOP}v{high}" stroke="currentColor" stroke-dasharray="1 3" opacity=".8"/>'
        if name:
            yield (
                f'<text x="{x(place) + 3:.1f}" y="{_TOP + 10}" font-size="10" fill="currentColor"{_HALO}>'
                f"{escape(name)}</text>"
            )
    for name, place in panel.strokes:
        yield (
            f'<path d="M{x(place):.1f} {_HEIGHT - _BOTTOM}v-{_STROKE}" stroke="currentColor">'
            f"<title>{escape(name)}</title></path>"
        )


def _frame(along: _Axis, ys: _Axis, panel: Panel, to: tuple[Callable[[float], float], ...]) -> Iterator[str]:
    """Ticks and the lines behind the points."""
    x, y = to
    bottom = _HEIGHT - _BOTTOM
    yield f'<path d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}" stroke="currentColor" opacity=".6"/>'
    for tick in ys.ticks:
        yield f'<path d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}" stroke="currentColor" opacity=".12"/>'
        yield (
            f'<text x="{_LEFT - 5}" y="{y(tick) + 3.5:.1f}" text-anchor="end" fill="currentColor">{_short(tick)}</text>'
        )
    ticks = list(enumerate(panel.names)) if panel.names else [(tick, _short(tick)) for tick in along.ticks]
    room = (_WIDTH - _LEFT - _RIGHT) / max(len(ticks), 1)
    for tick, name in ticks:
        yield (
            f'<path d="M{x(tick):.1f} {bottom}v4" stroke="currentColor" opacity=".6"/>'
            f'<text x="{x(tick):.1f}" y="{bottom + 15}" text-anchor="middle" fill="currentColor">'
            f"{_fitted(name, room)}</text>"
        )


def _fitted(name: str, room: float) -> str:
    """A name within so many pixels, for a `text` element; a shortened one is told whole by its tooltip."""
    if len(name) * _LETTER <= room:
        return escape(name)
    return f"<title>{escape(name)}</title>{escape(name[: max(3, int(room / _LETTER) - 1)])}…"


def _series(
    series: Series, points: Sequence[tuple[float, float, Point]], y: Callable[[float], float], *, is_crowded: bool
) -> Iterator[str]:
    colour = _colour(series.colour)
    if series.joined and len(points) > 1:
        dash = DASHES[series.dash.place % len(DASHES)] if series.dash else ""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        words = f"<title>{escape(series.name)}</title>" if not series.marked else ""
        path = "L".join(f"{x:.1f} {at:.1f}" for x, at, _ in points)
        yield f'<path d="M{path}" stroke="{colour}" stroke-width="1.6"{dashed}>{words}</path>'
    if is_crowded:
        # One element for all points of a kind: a line of no length with a round end is a dot.
        for hollow in (True, False):
            dots = "".join(f"M{x:.1f} {at:.1f}h0" for x, at, point in points if point.is_dominated is hollow)
            if dots and series.marked:
                yield (
                    f'<path d="{dots}" stroke="{colour}" stroke-linecap="round" stroke-width="{3 if hollow else 7}" '
                    f'opacity="{0.35 if hollow else 1}"/>'
                )
        return
    for x, at, point in points if series.marked else ():
        bar = ""
        if point.half:
            top, end = y(point.y + point.half), y(point.y - point.half)
            bar = f'<path d="M{x:.1f} {top:.1f}V{end:.1f}m-2.5 0h5M{x - 2.5:.1f} {top:.1f}h5" stroke="{colour}"/>'
        mark = f'<text x="{x + 5:.1f}" y="{at - 4:.1f}" fill="currentColor">{point.mark}</text>' if point.mark else ""
        yield (
            f'<g class="p">{bar}{mark}<path d="{_marker(series.shape)}" transform="translate({x:.1f} {at:.1f})" '
            f'stroke="{colour}" stroke-width="1.4" fill="{"none" if point.is_dominated else colour}" '
            f'pointer-events="all"/><title>{escape(point.name)}</title></g>'
        )


def _colour(style: Style) -> str:
    return "currentColor" if style.place < 0 else COLOURS[style.place % len(COLOURS)]


def _marker(style: Style | None) -> str:
    return MARKERS[(style.place if style else 0) % len(MARKERS)]


# --- legend ---------------------------------------------------------------------------------------------------------


def _legend(chart: Chart, width: int) -> Iterator[tuple[int, float, str]]:
    """What colours, shapes and dashes mean: (row, x, drawing) of every entry, below the panels and off the data."""
    row, x = 0, float(_LEFT)
    for drawn, name in _entries(chart):
        # Wider than letters are in most fonts: entries that touch cannot be told apart.
        needed = 34 + len(name) * (_LETTER + 0.7)
        if x + needed > width and x > _LEFT:
            row, x = row + 1, float(_LEFT)
        yield row, x, f'{drawn}<text x="16" y="4" fill="currentColor">{escape(name)}</text>'
        x += needed


def _entries(chart: Chart) -> Iterator[tuple[str, str]]:
    every = [series for panel in chart.panels for series in panel.series]
    for style, shape in dict.fromkeys((s.colour, s.shape if s.shape == s.colour else None) for s in every):
        mark = f'<path d="{_marker(shape)}" fill="{_colour(style)}"/>' if shape else ""
        line = "" if shape else f'<path d="M-7-3.5h14v7h-14z" fill="{_colour(style)}"/>'
        yield mark + line, style.name
    apart = dict.fromkeys(s.shape for s in every if s.shape and s.shape != s.colour)
    named = {series.colour.name for series in every}
    if len(apart) > 1:
        for shape in (each for each in apart if each.name not in named):  # dense is told by its colour
            yield f'<path d="{_marker(shape)}" stroke="currentColor" stroke-width="1.4"/>', shape.name
    for dash in dict.fromkeys(s.dash for s in every if s.dash):
        dashed = DASHES[dash.place % len(DASHES)]
        pattern = f' stroke-dasharray="{dashed}"' if dashed else ""
        yield f'<path d="M-12 0h22" stroke="currentColor" stroke-width="1.6"{pattern}/>', dash.name
