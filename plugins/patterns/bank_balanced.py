"""Bank-balanced sparsity: every bank of every row keeps equally many weights."""

from typing import ClassVar

from pydantic import Field, model_validator

from harness.api import Frame, JsonValue, Pattern, ShapeError, hookimpl

from . import _shared


class BankBalanced(Pattern):
    """Cut each row into banks and keep the highest scores of each bank, equally many in all of them.

    Either the number of banks is given or their size. `banks` takes any width: the sizes then differ by at most one
    (the longer banks first) and every bank keeps the same count. `bank_size` has to divide the row.

    Source:
        Cao et al., "Efficient and Effective Sparse LSTM on FPGA with Bank-Balanced Sparsity", FPGA 2019,
        DOI 10.1145/3289602.3293898.
    """

    name: ClassVar[str] = "bank_balanced"
    banks: int | None = Field(
        default=None, gt=0, description="banks per row; 10 if neither this nor `bank_size` is given"
    )
    bank_size: int | None = Field(default=None, gt=0, description="weights per bank, a divisor of the columns")

    @model_validator(mode="before")
    @classmethod
    def _one_of_the_two(cls, values: object) -> object:
        """Fill in the default, so that `banks: 10` and no parameter at all are one pattern with one label."""
        if not isinstance(values, dict):
            return values
        if values.get("banks") is not None and values.get("bank_size") is not None:
            raise ValueError(
                f"bank_balanced takes either `banks` or `bank_size`, got banks={values['banks']} and "
                f"bank_size={values['bank_size']}; leave one of them out"
            )
        if values.get("banks") is None and values.get("bank_size") is None:
            return {**values, "banks": 10}
        return values

    def parameters(self) -> dict[str, JsonValue]:
        """The parameter in use, as an experiment file names it."""
        return {"banks": self.banks} if self.bank_size is None else {"bank_size": self.bank_size}

    def frame(self, rows: int, cols: int) -> Frame:
        """Single weights, compared within their bank.

        Raises:
            ShapeError: there are more banks than columns, or `bank_size` does not divide the columns.
        """
        if self.bank_size is None:
            if self.banks is not None and self.banks > cols:
                raise ShapeError(
                    f"{self.name}: a row must hold at least one weight per bank, got banks={self.banks} for a "
                    f"matrix of {rows} x {cols}; set `banks` to at most {cols}"
                )
            return Frame(group=(1, None), banks=self.banks)
        _shared.require_divisor(self.name, "bank_size", self.bank_size, rows, cols)
        return Frame(group=(1, self.bank_size))


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return BankBalanced
