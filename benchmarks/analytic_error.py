"""How far the expectation of the bank engine is from its simulator, on the whole grid of 504 cases.

    python -m benchmarks.analytic_error [--masks 10]

Three matrices, six densities, fourteen shapes (several waves, ragged banks), PEs on their own and in lockstep; issue
cycles, the mean over random unstructured masks. Goals: a mean error of at most 1 %, the worst at most 6 %. Errors are
relative; the spread of the masks themselves is part of them, so fewer masks make them larger. About two minutes.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from harness_plugins.hardware._validation.own import DENSITIES, SIZES, GridCase, grid
from rich.console import Console
from rich.table import Table

MEAN, WORST = 0.01, 0.06


def table(cases: Sequence[GridCase]) -> Table:
    """Mean and worst error by matrix and density."""
    shown = Table(title="expectation against simulator, bank engine")
    for column in ("matrix", "density", "cases", "mean error", "worst error", "worst case"):
        shown.add_column(column, justify="left" if column in ("matrix", "worst case") else "right")
    for rows, cols in SIZES:
        for density in DENSITIES:
            some = [case for case in cases if (case.rows, case.cols, case.density) == (rows, cols, density)]
            worst = max(some, key=lambda case: case.error)
            pes, lanes, banks = worst.shape
            where = f"{pes} x {lanes}, {banks} banks{', lockstep' if worst.lockstep else ''}: {worst.simulated:.1f}"
            mean = float(np.mean([case.error for case in some]))
            shown.add_row(
                f"{rows} x {cols}", f"{density:g}", str(len(some)), f"{mean:.2%}", f"{worst.error:.2%}", where
            )
    return shown


def main() -> int:
    """Run the grid, print it, and say whether both goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=10, help="random masks per matrix and density")
    cases = list(grid(SIZES, DENSITIES, masks=parser.parse_args().masks))
    errors = [case.error for case in cases]
    mean, worst = float(np.mean(errors)), max(errors)
    Console(width=120).print(table(cases))
    met = mean <= MEAN and worst <= WORST
    print(f"{len(cases)} cases: mean {mean:.2%} (goal {MEAN:.0%}), worst {worst:.2%} (goal {WORST:.0%})")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
