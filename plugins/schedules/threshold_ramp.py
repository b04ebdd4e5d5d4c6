"""Narang's threshold ramp: a threshold that rises slowly, then steeply, told as a sparsity."""

from statistics import NormalDist
from typing import ClassVar

from pydantic import Field

from harness.api import Schedule, hookimpl


class ThresholdRamp(Schedule):
    """The sparsity under a threshold that rises by theta, and from the part `ramp` of the span on by `steeper` theta.

    The authors prune what lies below q (2 p) / (2 r + 3 (1 - r)) before the ramp r, and let the threshold rise 1.5 to 2
    times as fast after it, where q is a percentile of a trained model's |w|. How much that prunes is only known
    then; here the threshold is turned into a sparsity by the distribution of |w| that normal weights have, and ends at
    the target: s = P(|w| < t(p)), P(|w| < t(1)) = final.

    Source:
        Narang et al., "Exploring Sparsity in Recurrent Neural Networks", ICLR 2017: slopes and their ratio.
    """

    name: ClassVar[str] = "threshold_ramp"
    ramp: float = Field(
        default=1 / 3, ge=0, lt=1, description="part of the span after which the threshold rises faster"
    )
    steeper: float = Field(
        default=1.5, ge=1, allow_inf_nan=False, description="how much faster; the authors': 1.5 to 2"
    )

    def sparsity(self, progress: float, initial: float, final: float) -> float:
        """The share of normal weights below the threshold."""
        # Scaled to end at 1: the authors' theta is found by trial, here it is the one that ends at the target sparsity.
        end = self.ramp + self.steeper * (1 - self.ramp)
        threshold = (min(progress, self.ramp) + self.steeper * max(0.0, progress - self.ramp)) / end
        normal = NormalDist()
        # Trained weights are near normal: |w| below t sigma is a share of 2 Phi(t) - 1, which turns a threshold into a
        # sparsity.
        share = 2 * normal.cdf(threshold * normal.inv_cdf((1 + final) / 2)) - 1
        return max(initial, min(final, share))


@hookimpl
def register_schedule() -> type[Schedule]:
    """Offer this schedule to the harness."""
    return ThresholdRamp
