"""Charts drawn by matplotlib, for papers, theses and slides: PDF, SVG or PNG; equal charts give equal bytes.

The colours are those of the page, which colour-blind readers tell apart; markers and dashes say the same in grey.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from io import BytesIO
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from harness.api import PluginUnavailableError
from harness.report.charts import Bars, Chart, Panel, Picture, Raster, Series, Style
from harness.report.formats import MISFIT, UNEVEN
from harness.report.svg import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FigureStyle = Literal["thesis", "slides"]
FigureForm = Literal["pdf", "svg", "png"]

# The metadata that would change with the date of drawing.
_METADATA: dict[str, dict[str, None]] = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (8, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "<", "*")
_ACROSS = 3  # panels in a row
_DODGE = 3  # points between neighbours
_SIGNS = {UNEVEN: "kept weights differ, not of one sparsity", MISFIT: "does not fit its device"}
"""What a sign beside a point says, in the legend."""

_CROWD = 1500
"""Points of a panel, beyond which they are dots."""

_SETTINGS: dict[FigureStyle, dict[Any, Any]] = {
    "thesis": {"font.size": 8, "lines.linewidth": 1.0, "lines.markersize": 3.5, "figure.dpi": 300},
    "slides": {"font.size": 15, "lines.linewidth": 2.2, "lines.markersize": 8, "figure.dpi": 150},
}
_PANEL_INCHES: dict[FigureStyle, tuple[float, float]] = {"thesis": (2.3, 2.0), "slides": (5.2, 4.3)}

# Drawn with these, so that settings of the user's own leave no trace.
_OURS: dict[Any, Any] = {
    "svg.hashsalt": "harness", "svg.fonttype": "none", "pdf.fonttype": 42, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
    "axes.titleweight": "bold", "axes.titlesize": "medium", "axes.titlelocation": "left",
}  # fmt: skip


def drawn(charts: Sequence[Chart], form: FigureForm, style: FigureStyle = "thesis") -> bytes:
    """One picture with all panels of these charts.

    Args:
        charts: what is drawn; a legend below them has what tells series apart.
        form: of the file.
        style: sizes of letters, lines and panels.

    Raises:
        PluginUnavailableError: matplotlib is not installed.
    """
    _require()
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(chart, panel) for chart in charts for panel in chart.panels]
    across = max(1, min(_ACROSS, len(panels)))
    # At least one row, so that an empty chart is still a picture.
    down = max(1, -(-len(panels) // across))
    wide, high = _PANEL_INCHES[style]
    with mpl.rc_context():
        # From the library's own defaults: a user's matplotlibrc would change our bytes.
        mpl.rcdefaults()
        mpl.rcParams.update(_OURS | _SETTINGS[style])
        entries = list(dict.fromkeys(entry for chart in charts for entry in _entries(chart)))
        handles = [_handle(*entry) for entry in entries] + _marks(panel for _, panel in panels)
        letter = _SETTINGS[style]["font.size"] / 72  # inches
        # A column is as wide as its longest name, about; what stands outside the figure is cut off.
        fit = int(
            wide * across / ((0.6 * max((len(str(each.get_label())) for each in handles), default=0) + 5) * letter)
        )
        columns = max(1, min(len(handles), fit))
        # Panels keep their height, however many rows the legend needs.
        legend = 1.7 * letter * -(-len(handles) // columns)
        figure = Figure(figsize=(wide * across, high * down + 0.2 + legend), layout="constrained")
        FigureCanvasAgg(figure)  # draws without a display
        first: dict[str, Axes] = {}
        for number, (chart, panel) in enumerate(panels, start=1):
            # Panels of one chart have one vertical axis, so that they are read side by side.
            axes = figure.add_subplot(down, across, number, sharey=first.get(chart.name))
            first.setdefault(chart.name, axes)
            _panel(axes, chart, panel, title=chart.title if len(charts) > 1 else "")
            axes.set_title(_wrapped(axes.get_title("left"), int((wide - 0.5) / (0.66 * letter))))
            if (number - 1) % across and first[chart.name] is not axes:
                axes.set_ylabel("")  # it stands at the left end of the row
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        file = BytesIO()
        figure.savefig(file, format=form, metadata=_METADATA[form])
    return file.getvalue()


def stacked(pictures: Sequence[Picture], form: FigureForm) -> bytes:
    """Pictures of several kinds one below the other, each over the whole width with a legend of its own.

    Args:
        pictures: what is drawn.
        form: of the file.

    Raises:
        PluginUnavailableError: matplotlib is not installed.
    """
    _require()
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [_inches(picture) for picture in pictures]
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_OURS | _SETTINGS["thesis"] | {"figure.dpi": 200})
        figure = Figure(figsize=(_STACK_INCHES, sum(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        parts = figure.subfigures(len(pictures), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, picture in zip(parts, pictures, strict=True):
            part.suptitle(picture.title, x=0.01, ha="left", fontweight="bold")
            part.supxlabel(fill(" ".join(picture.about), _LETTERS), fontsize="x-small", x=0.01, ha="left", color="0.3")
            if isinstance(picture, Bars):
                _bars(part, picture)
            elif isinstance(picture, Raster):
                for place, (name, rows) in enumerate(picture.panels, start=1):
                    _raster(part.add_subplot(-(-len(picture.panels) // _RASTERS), _RASTERS, place), name, rows)
            else:
                first = None
                for place, panel in enumerate(picture.panels, start=1):
                    first = part.add_subplot(1, len(picture.panels), place, sharey=first)
                    _panel(first, picture, panel, title="")
                handles = [_handle(*entry) for entry in _entries(picture)]
                part.legend(handles=handles, loc="outside right upper", fontsize="small")
        file = BytesIO()
        figure.savefig(file, format=form, metadata=_METADATA[form])
    return file.getvalue()


_STACK_INCHES, _RASTERS, _LETTERS = 7.0, 4, 130
"""Width of stacked pictures, how many masks stand in a row, and letters of a line below."""


def _inches(picture: Picture) -> float:
    """Height of a picture in a stack."""
    if isinstance(picture, Bars):
        return 0.6 + sum(0.75 + 0.19 * len(bars) for _, bars in picture.panels)
    return 0.4 + 2.0 * -(-len(picture.panels) // _RASTERS) if isinstance(picture, Raster) else 2.9


def _bars(figure: Any, chart: Bars) -> None:
    """Panels of stacked bars, the first bar on top."""
    from matplotlib.patches import Patch

    colours = {part: COLOURS[place % len(COLOURS)] for place, part in enumerate(chart.parts)}
    ratios = [1 + len(bars) for _, bars in chart.panels]
    every = figure.subplots(len(chart.panels), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for axes, (title, bars) in zip(every, chart.panels, strict=True):
        for row, bar in enumerate(bars):
            reached = 0.0
            for part, value in bar.parts:
                axes.barh(row, value, left=reached, color=colours.get(part, "0.5"), height=0.7)
                reached += value
            axes.annotate(
                f"{bar.length:,.6g}{bar.mark}", (reached, row), xytext=(3, 0), textcoords="offset points", va="center",
                fontsize="small",
            )  # fmt: skip
        axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
        axes.set_xlim(0, 1.12 * max((bar.length for bar in bars), default=1.0) or 1.0)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_title(title)
    every[-1].set_xlabel(chart.x)
    handles = [Patch(color=colour, label=part) for part, colour in colours.items()]
    figure.legend(handles=handles, loc="outside right upper", fontsize="small")


def _raster(axes: Axes, name: str, rows: Sequence[Sequence[float]]) -> None:
    axes.imshow(rows, cmap="Blues", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    axes.set_title(name.replace(", ", "\n"), fontsize="small", fontweight="normal")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def _require() -> None:
    if find_spec("matplotlib") is None:
        raise PluginUnavailableError(
            "picture: matplotlib is needed and not installed; run `pip install 'sparsity-harness[plots]'`"
        )


def _panel(axes: Axes, chart: Chart, panel: Panel, *, title: str) -> None:
    is_crowded = sum(len(series.points) for series in panel.series) > _CROWD
    if chart.dodged and len(panel.series) < 9:
        axes.margins(x=0.05 + 0.02 * len(panel.series))  # what is moved aside stays within the axes
    for place, series in enumerate(panel.series):
        moved = (place - (len(panel.series) - 1) / 2) * _DODGE if chart.dodged and len(panel.series) < 9 else 0.0
        _series(axes, series, moved, is_crowded=is_crowded)
    for name, level in panel.levels:
        axes.axhline(level, color="0.4", linewidth=0.8, linestyle=(0, (2, 2)))
        axes.annotate(
            name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize="small",
            color="0.3", path_effects=_halo(),
        )  # fmt: skip
    for name, place_x in panel.events:
        axes.axvline(place_x, color="0.5", linewidth=0.8, linestyle=":")
        axes.annotate(name, (place_x, 1), xycoords=("data", "axes fraction"), va="top", fontsize="small", color="0.3")
    if panel.strokes:
        places = [place_x for _, place_x in panel.strokes]
        axes.vlines(places, 0, 0.04, transform=axes.get_xaxis_transform(), color="0.3", linewidth=0.8)
    axes.set(title=f"{title}\n{panel.title}".strip(), xlabel=panel.x or chart.x, ylabel=chart.y)
    if panel.names:
        axes.set_xticks(range(len(panel.names)), panel.names, rotation=30, ha="right")
    if panel.is_log_x:
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
    if chart.is_log_y:
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)


def _wrapped(title: str, letters: int) -> str:
    """A title in lines that stay above their own panel."""
    return "\n".join(fill(line, max(letters, 10)) for line in title.splitlines())


def _plain_ticks(axis: Any) -> None:
    """Plain numbers at 1, 2 and 5 of every power, in place of powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _halo() -> list[Any]:
    """White around letters, so that they are read on top of lines."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2, foreground="white")]


def _series(axes: Axes, series: Series, moved: float, *, is_crowded: bool) -> None:
    from matplotlib.transforms import ScaledTranslation

    colour = _colour(series.colour)
    figure = axes.get_figure()
    assert figure is not None
    shift = axes.transData + ScaledTranslation(moved / 72, 0, figure.dpi_scale_trans)  # moves what is seen, not values
    xs, ys = [point.x for point in series.points], [point.y for point in series.points]
    if series.joined:
        dash = _DASHES[series.dash.place % len(_DASHES)] if series.dash else "-"
        axes.plot(xs, ys, color=colour, linestyle=dash, transform=shift)
        axes.update_datalim(list(zip(xs, ys, strict=True)))
    if not series.marked:
        return
    marker = "." if is_crowded else _MARKERS[(series.shape.place if series.shape else 0) % len(_MARKERS)]
    for hollow in (False, True):
        points = [point for point in series.points if point.is_dominated is hollow]
        if not points:
            continue
        halves = [point.half or 0.0 for point in points]
        axes.errorbar(
            [point.x for point in points], [point.y for point in points],
            yerr=halves if any(halves) and not is_crowded else None, linestyle="none", marker=marker, color=colour,
            markerfacecolor="none" if hollow else colour, capsize=2, transform=shift,
            alpha=0.4 if hollow and is_crowded else 1,
        )  # fmt: skip
        # Intervals count for the limits too, which matplotlib takes from the points alone.
        reach = [(point.x, point.y + sign * (point.half or 0.0)) for point in points for sign in (-1, 1)]
        axes.update_datalim(reach)
    for point in series.points:
        if point.mark:
            beside = (moved + 3, 3)
            axes.annotate(point.mark, (point.x, point.y), fontsize="small", xytext=beside, textcoords="offset points")
    axes.autoscale_view()


def _colour(style: Style) -> str:
    return "0.1" if style.place < 0 else COLOURS[style.place % len(COLOURS)]


# --- legend ---------------------------------------------------------------------------------------------------------


def _entries(chart: Chart) -> list[tuple[Style | None, Style | None, Style | None]]:
    """What the legend explains: (colour, shape, dash), those that are not one entry's None."""
    every = [series for panel in chart.panels for series in panel.series]
    # A pattern has one colour and one marker: they make one entry of the legend.
    found: list[tuple[Style | None, Style | None, Style | None]] = [
        (series.colour, series.shape if series.shape == series.colour else None, None) for series in every
    ]
    apart = dict.fromkeys(series.shape for series in every if series.shape and series.shape != series.colour)
    named = {series.colour.name for series in every}
    found += [(None, shape, None) for shape in apart if len(apart) > 1 and shape.name not in named]
    found += [(None, None, series.dash) for series in every if series.dash]
    return list(dict.fromkeys(found))


def _marks(panels: Iterable[Panel]) -> list[Any]:
    """What the signs beside points mean, as far as they are drawn."""
    from matplotlib.lines import Line2D

    drawn_ = {point.mark for panel in panels for point in panel.points}
    return [
        Line2D([], [], linestyle="none", marker=rf"$\mathsf{{{mark}}}$", color="0.2", label=words)
        for mark, words in _SIGNS.items()
        if mark in drawn_
    ]


def _handle(colour: Style | None, shape: Style | None, dash: Style | None) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if dash is not None:
        return Line2D([], [], color="0.2", linestyle=_DASHES[dash.place % len(_DASHES)], label=dash.name)
    if shape is None:
        assert colour is not None
        return Patch(color=_colour(colour), label=colour.name)
    own = colour is not None
    return Line2D(
        [], [], linestyle="none", marker=_MARKERS[shape.place % len(_MARKERS)], label=shape.name,
        color=_colour(shape) if own else "0.2", markerfacecolor=_colour(shape) if own else "none",
    )  # fmt: skip
