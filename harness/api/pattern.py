"""Patterns: given scores and a sparsity, which weights stay."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Protocol, runtime_checkable

from pydantic import Field, model_validator

from harness.api.component import Component, Frozen
from harness.api.network import Tensor
from harness.arrays import Mask, Matrix
from harness.errors import PluginContractError, ShapeError
from harness.selection.best import best
from harness.selection.kernel import select
from harness.selection.layout import Layout


class Frame(Frozen):
    """A unit whose weights live or die together, and a group in which equally many units stay.

    Args:
        unit: (rows, cols) of one unit, in weights; None means the whole extent of the matrix.
        group: (rows, cols) of one group, in weights; None means the whole extent of the matrix.
        banks: cut the columns of a group into this many banks whose sizes differ by at most one, each a group of its
            own with the same quota; excludes a group width.
        row_banks: cut the rows of a group likewise; excludes a group height.
        view: (row stride, column stride) in which the matrix is read before units and groups are laid: with a stride of
            P, rows 0, P, 2P, ... come first, then 1, P + 1, ... Rows r mod P of a processing element lie together so
            (with `row_banks=P`), the units of an LSTM's gates (a stride of its width), or the channels under one tap of
            a convolution (a column stride of its taps).
        coupling: `labels` lets whole rows stand for the units that the tensor's row axis counts: a unit's rows and
            columns live or die together in all tensors of the scope that have its label.
        pooling: how a unit's score is made of its weights' scores.
        at_least: units every group keeps at any sparsity.
    """

    unit: tuple[int | None, int | None] = (1, 1)
    group: tuple[int | None, int | None] = (None, None)
    banks: int | None = Field(default=None, gt=0)
    row_banks: int | None = Field(default=None, gt=0)
    view: tuple[int, int] = (1, 1)
    coupling: Literal["none", "labels"] = "none"
    pooling: Literal["mean", "max"] = "mean"
    at_least: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _called_unit(cls, values: object) -> object:
        """A plugin written before interface 2 says `cell`; the word is left to the experiment."""
        if isinstance(values, dict) and "cell" in values:
            raise PluginContractError(
                f"Frame: a pattern's `cell` is called `unit` since plugin interface 2, got cell={values['cell']}; "
                f"write unit={values['cell']}"
            )
        return values


class Pattern(Component):
    """A sparsity pattern. Most patterns only declare their `frame`.

    A pattern that decides over all tensors of the scope at once defines `masks` beside it, as `WholeScopePattern`
    describes; every answer is checked all the same.

    Example:
        Pairs of adjacent weights live or die together, equally many in every row.

        >>> class Pairs(Pattern):
        ...     name = "pairs"
        ...     def frame(self, rows, cols):
        ...         return Frame(unit=(1, 2), group=(1, None))
        >>> Pairs().layout(4, 8).quota(0.75)  # of the four pairs of a row
        1
    """

    kind: ClassVar[Literal["pattern"]] = "pattern"

    spans_tensors: ClassVar[bool] = False
    """Whether one group may span all tensors of the scope (allocation `global`)."""

    @abstractmethod
    def frame(self, rows: int, cols: int) -> Frame:
        """Unit and group for a matrix of this shape.

        Raises:
            ShapeError: the pattern's parameters do not fit the shape; the sentence names the way out.
        """

    def for_tensor(self, tensor: Tensor) -> "Pattern":
        """This pattern as it is for one tensor, where its role or axes matter beyond its shape; itself by default."""
        return self

    def layout(self, rows: int, cols: int) -> Layout:
        """The frame laid over a matrix, checked: which groups there are and how large they are.

        Raises:
            ShapeError: as `frame`, or the frame's units and groups do not tile the matrix.
        """
        frame = self.frame(rows, cols)
        try:
            # What a plugin declares is checked where it meets a matrix: the same frame may fit another one.
            # Pooling and coupling are about values and tensors; a layout knows shapes alone.
            return Layout.of(rows, cols, **frame.model_dump(exclude={"pooling", "coupling"}))
        except ValueError as error:
            raise ShapeError(f"{self.label()}: {error}") from None

    def mask(self, scores: Matrix, sparsity: float) -> Mask:
        """Keep the highest scores of every group, ties at the lower index.

        Args:
            scores: importance of each weight, higher is kept; -inf marks weights that are already pruned; not modified.
            sparsity: fraction of zeros to reach, in [0, 1).

        Returns:
            True where a weight is kept.

        Shapes:
            scores (rows, cols) -> mask (rows, cols).
        """
        rows, cols = scores.shape
        return select(scores, self.layout(rows, cols), sparsity, pooling=self.frame(rows, cols).pooling)

    def reachable(self, rows: int, cols: int, sparsity: float) -> float:
        """The sparsity a mask of this shape really has when `sparsity` is asked for.

        Raises:
            ShapeError: as `frame`.
        """
        return self.layout(rows, cols).reached(sparsity)

    def banks_per_row(self, rows: int, cols: int) -> int | None:
        """How many equally filled banks every row has, for hardware that has a lane per bank; None if it has none."""
        return self.layout(rows, cols).banks_per_row

    def why_not_scope(self, tensors: Sequence[Tensor], sparsity: float) -> str | None:
        """Why this pattern means nothing for a scope (a declared skip), as half a sentence; None if it does."""
        return None

    def why_not(self, rows: int, cols: int, sparsity: float) -> str | None:
        """Why a final sparsity is none of this pattern's (a declared skip), as half a sentence; None if it is."""
        return None


@runtime_checkable
class WholeScopePattern(Protocol):
    """A pattern that decides over all tensors of the scope at once; a `Pattern` becomes one by defining `masks`."""

    def masks(
        self, scores: Mapping[str, Matrix], sparsities: Mapping[str, float], tensors: Sequence[Tensor]
    ) -> Mapping[str, Mask]:
        """Masks of every tensor.

        Args:
            scores: by tensor name, (rows, cols); -inf marks weights that are already pruned.
            sparsities: the sparsity allotted to each tensor; together the masks must come within 0.02 of it.
            tensors: the scope, in order, with roles and labelled axes.
        """


def keep_best(scores: Matrix, count: int) -> Mask:
    """The `count` highest scores of a whole matrix, ties at the lower row-major index; for patterns that no frame says.

    Args:
        scores: finite or -inf; not modified.
        count: how many to keep, at most all.

    Shapes:
        scores (rows, cols) -> mask (rows, cols).

    Example:
        >>> import numpy as np
        >>> keep_best(np.array([[3.0, 1.0], [2.0, 2.0]]), 2)
        array([[ True, False],
               [ True, False]])
    """
    return best(scores.reshape(1, -1), count).reshape(scores.shape)
