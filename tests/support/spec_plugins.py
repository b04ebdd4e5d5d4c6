"""A few plugins with every shape of parameter, so that messages of spec tests change with the spec's code only."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from harness.api import (
    LSTM,
    SGD,
    Backend,
    Constant,
    Cost,
    Dense,
    Embedding,
    Frame,
    Frozen,
    HardwareModel,
    Metric,
    Network,
    Pattern,
    Problem,
    Prune,
    Recipe,
    ShapeError,
    SpecError,
    Strategy,
    Task,
    Train,
    hookimpl,
)


class Source(Frozen):
    words: int = Field(default=50, gt=1)
    order: Literal[1, 2] = 1


class Letters(Task):
    """A language model of eight units."""

    name: ClassVar[str] = "letters"
    corpus: Literal["embedded", "ptb", "text"] = "embedded"
    hidden: int = Field(default=8, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    train_tokens: int | None = Field(default=None, gt=0)
    source: Source = Source()

    def load(self, data_dir):
        return LettersProblem(self.hidden)

    def smoke(self):
        return self.model_copy(update={"train_tokens": 10})


class Pixels(Task):
    """A classifier of a single layer."""

    name: ClassVar[str] = "pixels"

    def load(self, data_dir):
        return PixelsProblem()


class _Untrained(Problem):
    fingerprint = "none"
    facts: ClassVar[dict] = {}

    def initial_weights(self, seed):
        raise AssertionError("nothing is trained here")

    batches = value = initial_weights


class LettersProblem(_Untrained):
    recipe = Recipe(epochs=4, optimiser=SGD(), learning_rate=Constant(rate=0.1), steps_per_epoch=10)
    metric = Metric(name="perplexity", better="lower")

    def __init__(self, hidden):
        self.network = Network(
            layers=(
                Embedding(name="embedding", words=12, features=hidden),
                LSTM(name="lstm_0", inputs=hidden, units=hidden, input_label="embedding.features"),
                Dense(name="softmax", inputs=hidden, units=12, role="softmax", input_label="lstm_0.units"),
            )
        )


class PixelsProblem(_Untrained):
    recipe = Recipe(epochs=2, optimiser=SGD(), learning_rate=Constant(rate=0.1), steps_per_epoch=10)
    metric = Metric(name="accuracy", better="higher")
    network = Network(layers=(Dense(name="dense_0", inputs=16, units=3, input_label="pixels"),), input_shape=(16,))


class Unstructured(Pattern):
    """Any weight may go."""

    name: ClassVar[str] = "unstructured"

    def frame(self, rows, cols):
        return Frame()


class BankBalanced(Pattern):
    """Equally many in every bank."""

    name: ClassVar[str] = "bank_balanced"
    banks: int | None = Field(default=None, gt=0)
    bank_size: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_of_both(self):
        if self.banks is not None and self.bank_size is not None:
            raise ValueError(f"expected `banks` or `bank_size`, got both ({self.banks} and {self.bank_size})")
        return self

    def parameters(self):
        return self.model_dump(by_alias=True)

    def frame(self, rows, cols):
        banks = self.banks or 2
        if banks > cols:
            raise ShapeError(f"bank_balanced: {banks} banks do not fit {cols} columns; set `banks` to at most {cols}")
        return Frame(banks=banks)


class FineTuning(Strategy):
    """Prune, then train on."""

    name: ClassVar[str] = "fine_tuning"
    epochs: int = Field(default=1, gt=0)
    lr: Literal["last"] | Annotated[float, Field(gt=0)] = "last"
    score: Literal["magnitude", "random", "gradient"] = "magnitude"

    def program(self, recipe, sparsity):
        dense = Train(epochs=recipe.epochs, lr=recipe.learning_rate)
        return (dense, Prune(sparsity=sparsity), Train(epochs=self.epochs, lr=recipe.learning_rate))


class Rewinding(Strategy):
    """Prune, then train the last epochs again."""

    name: ClassVar[str] = "rewinding"
    epochs: int = Field(default=1, gt=0)

    def program(self, recipe, sparsity):
        if self.epochs >= recipe.epochs:
            raise SpecError(f"rewinding: `epochs` must be below {recipe.epochs}, got {self.epochs}; set a lower number")
        return FineTuning(epochs=self.epochs).program(recipe, sparsity)


class Here(Backend):
    """A backend that is installed."""

    name: ClassVar[str] = "here"

    def why_unavailable(self):
        return None

    def versions(self):
        return {}

    def open(self, problem, settings):
        raise AssertionError("nothing is trained here")


class There(Here):
    """A backend whose framework is missing."""

    name: ClassVar[str] = "there"

    def why_unavailable(self):
        return "There is not installed; run `pip install there`"


class Board(HardwareModel):
    """One board of two."""

    name: ClassVar[str] = "board"
    device: str = "small_board"
    clock_mhz: float = Field(default=200.0, gt=0)

    @field_validator("device")
    @classmethod
    def _known(cls, device):
        if device not in ("small_board", "large_board"):
            raise SpecError(f"unknown device '{device}'; known are small_board and large_board")
        return device

    def cost(self, workload) -> Cost:
        raise AssertionError("nothing is costed here")


@hookimpl
def register_task():
    return [Letters, Pixels]


@hookimpl
def register_pattern():
    return [Unstructured, BankBalanced]


@hookimpl
def register_strategy():
    return [FineTuning, Rewinding]


@hookimpl
def register_backend():
    return [Here, There]


@hookimpl
def register_hardware():
    return Board
