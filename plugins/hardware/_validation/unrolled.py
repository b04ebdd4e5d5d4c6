"""The rule of unrolled circuits: their adders against a solver made for them, and the sums that they compute."""

import numpy as np

from harness.api.validation import Check

from ..engines.static_dataflow.circuit import circuit
from ..engines.static_dataflow.digits import Integers
from .targets import Evaluation, Rule, Targets, allowed, compared

INPUT_BITS = 8
"""Of the vectors of all recorded circuits."""

_BLOCK = 4
_BANK = 8


def pruned(kind: str, seed: int, size: int, sparsity: float, bits: int) -> Integers:
    """Normally distributed weights of a square matrix as integers, the largest kept: a circuit that both sides get.

    Args:
        kind: unstructured, banks (of 8) or blocks (of 4 x 4).
        seed: of the weights.
        size: rows and columns.
        sparsity: fraction of zeros.
        bits: of a weight; the step is chosen so that the largest one is the largest integer.
    """
    weights = np.random.default_rng(seed).standard_normal((size, size))
    magnitudes = np.abs(weights)
    if kind == "unstructured":
        mask = magnitudes >= np.quantile(magnitudes, sparsity)
    elif kind == "banks":
        ranks = (-magnitudes.reshape(size, -1, _BANK)).argsort(axis=-1).argsort(axis=-1)
        mask = (ranks < _BANK * (1 - sparsity)).reshape(size, size)
    else:
        sums = magnitudes.reshape(size // _BLOCK, _BLOCK, size // _BLOCK, _BLOCK).sum(axis=(1, 3))
        mask = np.kron(sums >= np.quantile(sums, sparsity), np.ones((_BLOCK, _BLOCK))) > 0
    top = (1 << (bits - 1)) - 1
    found: Integers = np.round(weights * mask / magnitudes.max() * top).astype(np.int64)
    return found


def _solver(rule: Rule, targets: Targets) -> list[Check]:
    """Adder bits of every recorded circuit, and whether ours computes the product."""
    found = []
    for row, entry in enumerate(targets.table("alkaid", "circuits")):
        size, sparsity, bits = (targets.cell("alkaid", "circuits", row, name) for name in ("size", "sparsity", "bits"))
        kind, target = str(entry["kind"]), targets.cell("alkaid", "circuits", row, "adder_bits")
        weights = pruned(kind, 0, int(size.value), sparsity.share(), int(bits.value))
        made = circuit(weights, INPUT_BITS)
        vectors = np.random.default_rng(row).integers(-128, 128, size=(weights.shape[1], 8))
        wrong = int((made.evaluate(vectors) != weights @ vectors).sum())
        # A circuit that computes something else has no size.
        modelled = float(made.luts) if not wrong else None
        shape = f"{int(size.value)} x {int(size.value)}, {100 * sparsity.value:g} %, w{int(bits.value)}"
        what = f"adder bits, {kind} of {shape}"
        note = f"{made.adders} adders for {made.digits} digits; {wrong} wrong sums of {len(weights) * 8}"
        found.append(
            compared(rule, what, "static_dataflow", modelled, target, "bits", within=allowed(rule, targets), note=note)
        )
    return found


UNROLLED: dict[str, Evaluation] = {"unrolled_adders": _solver}
"""Rules by id."""
