"""The one tree of errors that a user may meet.

HarnessError                    anything a user can cause and mend
├── SpecError                   the experiment file or a command line is wrong        exit 2
│   ├── UnknownPluginError      a name that no plugin has
│   └── ShapeError              a shape that a pattern cannot take (a ValueError too)
├── DataError                   data is missing, truncated or not what it should be   exit 2
├── PluginUnavailableError      a needed plugin is broken or not installed            exit 4
├── EmptySelectionError         nothing is left to run or to report                   exit 5
├── StoreError                  the store cannot be written or read                   exit 7
├── PluginContractError         a plugin answered something its contract forbids      the cell fails
├── NonFiniteError              a NaN or infinite weight where masks are made         the cell fails
└── DivergedError               the loss is no longer finite                          the cell is `diverged`
"""

from typing import ClassVar

from harness import _text


class HarnessError(Exception):
    """One sentence: who expected what, what was got, the way out."""

    exit_code: ClassVar[int] = 2

    def __str__(self) -> str:
        """The sentence, in which words of users and of other code are bounded and cannot act on a terminal."""
        return _text.lines(super().__str__())


class SpecError(HarnessError):
    """An experiment file or a command line that cannot be run as it stands."""


class UnknownPluginError(SpecError):
    """A name that no plugin of its kind has."""


class ShapeError(SpecError, ValueError):
    """A matrix whose shape a pattern cannot take."""


class DataError(HarnessError):
    """Data that is missing, truncated or not what its loader expects."""


class PluginUnavailableError(HarnessError):
    """A plugin that an experiment needs and that is broken or not installed."""

    exit_code = 4


class EmptySelectionError(HarnessError):
    """A selection that leaves nothing to do."""

    exit_code = 5


class StoreError(HarnessError):
    """A store that cannot be read or written."""

    exit_code = 7


class PluginContractError(HarnessError):
    """A plugin's answer that breaks the contract of its kind."""

    exit_code = 1


class OwnCodeError(HarnessError):
    """What a user's own model, loss, metric or data set raised, with its file and line."""


class NonFiniteError(HarnessError):
    """A weight or score that is NaN or infinite where a mask has to be made."""

    exit_code = 1


class DivergedError(HarnessError):
    """A training whose loss, or whose metric after it, is no longer finite.

    Args:
        step: the 0-based step within the epoch; None where an evaluation found it.
        loss: the value met.
        what: what is not finite.
    """

    exit_code = 1

    def __init__(self, step: int | None, loss: float, what: str = "training loss") -> None:
        super().__init__(step, loss, what)
        self.step = step
        self.loss = loss
        self.what = what

    def __str__(self) -> str:
        """Say where the training went wrong."""
        place = "" if self.step is None else f" at step {self.step} of the epoch"
        return f"the {self.what} became {self.loss}{place}; lower the learning rate or clip the gradients"
