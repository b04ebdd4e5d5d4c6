"""The gallery: what every pattern keeps of one and the same matrix, as a picture or a page."""

import html
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness._outputs import write_output
from harness.api import LSTM, Mask, Pattern, PluginUnavailableError, ShapeError, SpecError, WholeScopePattern
from harness.masks.coupling import Coupling
from harness.masks.updates import is_coupled

if TYPE_CHECKING:
    from harness.discovery.registry import Registry

_UNITS, _INPUTS, _SPARSITY, _CELL = 8, 40, 0.75, 7
_LAYER = LSTM(name="lstm", inputs=_INPUTS, units=_UNITS, input_label="inputs")
_TENSORS = tuple(tensor for tensor in _LAYER.tensors() if tensor.is_prunable)
_COLUMNS = 3
_WHAT = (
    f"What every pattern keeps of one matrix of {4 * _UNITS} x {_INPUTS} random scores, an LSTM's, at sparsity "
    f"{_SPARSITY:g} or what comes nearest; dark weights stay. Patterns that look at several tensors show the recurrent "
    "matrix beside it."
)


@dataclass(frozen=True)
class Piece:
    """One pattern's picture.

    Args:
        label: the pattern with its parameters.
        about: its docstring.
        mask: True where a weight stays; None where the pattern does not take the matrix.
        reason: why there is none.
    """

    label: str
    about: str
    mask: Mask | None
    reason: str = ""


def write_gallery(path: Path, registry: "Registry") -> int:
    """Draw every pattern of a registry with its defaults; equal patterns, equal bytes.

    Args:
        path: ends in .svg, .png or .html.
        registry: its patterns are drawn.

    Returns:
        How many were drawn.

    Raises:
        SpecError: the suffix names no such format, or the file cannot be written.
        PluginUnavailableError: a PNG is asked for and matplotlib is not installed.
    """
    if path.suffix not in _FORMS:
        raise SpecError(f"plugins gallery: -o expects a file ending in {', '.join(_FORMS)}, got {path.name!r}")
    pieces = [_piece(registry.get("pattern", name)()) for name in registry.names("pattern")]  # type: ignore[arg-type]
    write_output(path, _FORMS[path.suffix](pieces))
    return sum(piece.mask is not None for piece in pieces)


def _piece(pattern: Pattern) -> Piece:
    about = inspect.cleandoc(type(pattern).__doc__ or "")
    try:
        return Piece(pattern.label(), about, _mask(pattern))
    except (ShapeError, SpecError) as error:
        return Piece(pattern.label(), about, None, str(error))


def _mask(pattern: Pattern) -> Mask:
    """The mask of one LSTM's input matrix; beside it the recurrent one, where the pattern looks at both."""
    # A seed of the gallery's own: its pictures are compared with those of the last time.
    rng = np.random.default_rng(5)
    scores = {tensor.name: np.abs(rng.normal(size=tensor.shape)) for tensor in _TENSORS}
    masks = {}
    if isinstance(pattern, WholeScopePattern):
        masks = dict(pattern.masks(scores, dict.fromkeys(scores, _SPARSITY), _TENSORS))
    elif is_coupled(pattern, _TENSORS):
        masks = Coupling.of(_TENSORS).masks(scores, _SPARSITY)
    if masks:
        # A column between the two matrices that belongs to neither.
        gap = np.zeros((4 * _UNITS, 1), np.bool_)
        first, second = (masks[tensor.name] for tensor in _TENSORS)
        return np.concatenate([first, gap, second], axis=1)
    return pattern.for_tensor(_TENSORS[0]).mask(scores[_TENSORS[0].name], _SPARSITY)


def _page(pieces: Sequence[Piece]) -> str:
    """A page in one file: pictures in it, words beside them."""
    parts = []
    for piece in pieces:
        picture = f"<p>{html.escape(piece.reason)}</p>"
        if piece.mask is not None:
            width, height = piece.mask.shape[1] * _CELL, piece.mask.shape[0] * _CELL
            picture = f'<svg width="{width}" height="{height}" role="img">{_squares(piece.mask)}</svg>'
        title, about = html.escape(_title(piece)), html.escape(piece.about)
        parts.append(f"<section><h2>{title}</h2>{picture}<pre>{about}</pre></section>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Patterns</title><style>'
        "body{font:16px/1.5 sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
        "section{border-top:1px solid #ccc;padding:1rem 0}svg{max-width:100%}"
        "pre{white-space:pre-wrap;font:inherit}</style></head><body><h1>Patterns</h1>"
        f"<p>{html.escape(_WHAT)}</p>{''.join(parts)}</body></html>\n"
    )


def _svg(pieces: Sequence[Piece]) -> str:
    """All pictures with their names, in rows."""
    shown = [piece for piece in pieces if piece.mask is not None]
    wide, high = (_INPUTS + 1 + _UNITS) * _CELL + 24, 4 * _UNITS * _CELL + 44
    parts = []
    for index, piece in enumerate(shown):
        assert piece.mask is not None
        x, y = index % _COLUMNS * wide + 12, index // _COLUMNS * high + 32
        title = f'<text x="0" y="-8" font-family="sans-serif" font-size="13">{html.escape(_title(piece))}</text>'
        parts.append(f'<g transform="translate({x} {y})">{title}{_squares(piece.mask)}</g>')
    width, height = _COLUMNS * wide, -(-len(shown) // _COLUMNS) * high
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<title>{html.escape(_WHAT)}</title><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _squares(mask: Mask) -> str:
    """The matrix as pale ground, every run of kept weights as one dark rectangle."""
    runs = []
    for row, line in enumerate(mask):
        # Where kept and dropped meet, with a border on each side: starts and ends of runs alternate.
        edges = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(np.int8)))
        runs += [
            f"M{start * _CELL} {row * _CELL}h{(stop - start) * _CELL}v{_CELL - 1}h-{(stop - start) * _CELL}z"
            for start, stop in zip(edges[::2], edges[1::2], strict=True)
        ]
    height = len(mask) * _CELL
    grounds = [(0, _INPUTS), *([(_INPUTS + 1, mask.shape[1])] if mask.shape[1] > _INPUTS else [])]
    pale = "".join(
        f'<rect x="{first * _CELL}" width="{(last - first) * _CELL}" height="{height}" fill="#e4e6ea"/>'
        for first, last in grounds
    )
    return f'{pale}<path fill="#1f3a5f" d="{"".join(runs)}"/>'


def _png(pieces: Sequence[Piece]) -> bytes:
    """The same by matplotlib."""
    if find_spec("matplotlib") is None:
        raise PluginUnavailableError(
            "plugins gallery: a PNG needs matplotlib, which is not installed; run `pip install "
            "'sparsity-harness[plots]'`, or write .svg or .html"
        )
    from matplotlib.figure import Figure

    shown = [piece for piece in pieces if piece.mask is not None]
    rows = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(4.2 * _COLUMNS, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, piece in zip(axes, shown, strict=False):
        assert piece.mask is not None
        image = np.where(piece.mask, 0.2, 0.9)
        image[:, _INPUTS : _INPUTS + 1] = 1.0
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(_title(piece), fontsize=9, loc="left")
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110, metadata={"Software": None})
    return held.getvalue()


def _title(piece: Piece) -> str:
    if piece.mask is None:
        return piece.label
    # The gap is no weight and must not be counted as one.
    weights = np.delete(piece.mask, _INPUTS, axis=1) if piece.mask.shape[1] > _INPUTS else piece.mask
    return f"{piece.label}: {1 - weights.mean():.0%} zeros"


_FORMS: Mapping[str, Callable[[Sequence[Piece]], str | bytes]] = {".svg": _svg, ".png": _png, ".html": _page}
