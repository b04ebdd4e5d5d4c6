"""N:M sparsity: of every M consecutive weights of a row, N stay."""

from typing import ClassVar

from pydantic import Field, model_validator

from harness.api import Frame, Pattern, hookimpl

from . import _shared


class NM(Pattern):
    """Keep the `n` highest scores of every `m` consecutive weights along the inputs.

    While a schedule is still below its end, groups keep more than `n`; they never keep fewer. So only a target of
    1 - n/m can be reached: other targets are skipped with that reason.

    Source:
        Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv 2104.08378: 2:4, at least two zeros in every
        four consecutive weights.
    """

    name: ClassVar[str] = "n_m"
    n: int = Field(default=2, gt=0, description="weights kept in every group")
    m: int = Field(default=4, gt=1, description="consecutive weights of a group, a divisor of the columns")

    @model_validator(mode="after")
    def _fewer_than_all(self) -> "NM":
        if self.n >= self.m:
            raise ValueError(
                f"n_m keeps n of every m weights, so n must be less than m, got n={self.n} and m={self.m}; "
                f"set `n` to at most {self.m - 1}"
            )
        return self

    def frame(self, rows: int, cols: int) -> Frame:
        """Single weights, compared within `m` consecutive ones.

        Raises:
            ShapeError: `m` does not divide the columns.
        """
        _shared.require_divisor(self.name, "m", self.m, rows, cols)
        return Frame(group=(1, self.m), at_least=self.n)

    def why_not(self, rows: int, cols: int, sparsity: float) -> str | None:
        """A target at which more than `n` stay is not N:M."""
        # Above the sparsity of N:M `at_least` holds the quota at n and the tolerance judges; only below it do more
        # stay.
        if self.layout(rows, cols).quota(sparsity) == self.n:
            return None
        return f"would keep more than {self.n} of {self.m}; {self.n}:{self.m} is a sparsity of {1 - self.n / self.m:g}"


@hookimpl
def register_pattern() -> type[Pattern]:
    """Offer this pattern to the harness."""
    return NM
