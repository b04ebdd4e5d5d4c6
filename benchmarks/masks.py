"""How fast masks are made, beside the fastest peer that does the same work: `python -m benchmarks.masks [rows cols]`.

The work: from a float32 matrix of scores to a bool mask of its shape with exactly as many kept as asked for. The peers
that do it are `np.argpartition` and `torch.topk`, each with the few lines around it that write the mask; blocks are
pooled by the peer's own library (`mean`, `avg_pool2d`, in single precision, where the harness decides in double). Goals
are ratios to the faster of the two on continuous scores; on tied scores a peer's choice among equals is arbitrary,
which is printed and is no goal. The goal of unstructured masks is 4 x where NumPy uses AVX-512 and 3.5 x elsewhere: a
sample and the few scores near the threshold are sorted, and that gains more from AVX-512 than a partition does.
`torch.nn.utils.prune`, `torch.ao.pruning` and TF-MOT are timed beside them where installed.

Every tool lives in a process of its own with one thread; they take turns, round by round, and count CPU seconds, so
that a busy neighbour falls on all of them. Ends with exit code 1 where a goal is missed or a count is wrong.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np
from numpy._core._multiarray_umath import __cpu_features__

from harness.api import Mask, Matrix
from harness.selection.kernel import select
from harness.selection.layout import Layout

Work = Callable[[], object]
"""Makes one mask: an array, or a tensor that `np.asarray` turns into one."""


@dataclass(frozen=True)
class Case:
    """One pattern over the matrix: units of `block` x `block`, groups of `group` weights in a row, None for all."""

    name: str
    sparsity: float
    goal: float
    group: int | None = None
    block: int = 1

    def layout(self, scores: Matrix) -> Layout:
        """Its units and groups."""
        rows, cols = scores.shape
        group = (None, None) if self.group is None else (1, self.group)
        return Layout.of(rows, cols, unit=(self.block, self.block), group=group)


HAS_AVX512 = bool(__cpu_features__.get("X86_V4") or __cpu_features__.get("AVX512_SKX"))
"""Whether NumPy sorts with AVX-512; NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" keeps it from that."""

CASES = (
    Case("unstructured 90 %", 0.9, 4.0 if HAS_AVX512 else 3.5),
    Case("BBS, 6 of each 60", 0.9, 2.5, group=60),
    Case("2:4", 0.5, 5.0, group=4),
    Case("blocks 4 x 4, 90 %", 0.9, 2.5, block=4),
)
KINDS = ("continuous", "tied")
RIVALS = ("np.argpartition", "torch.topk")
SHOWN = ("torch.nn.utils.prune", "torch.ao.pruning", "TF-MOT")


def harness_work(case: Case, scores: Matrix) -> Work:
    """The kernel, finiteness check included."""
    layout = case.layout(scores)
    return lambda: select(scores, layout, case.sparsity)


def argpartition_work(case: Case, scores: Matrix) -> Work:
    """The places of the highest of each group, then True written there."""
    rows, cols = scores.shape
    block = case.block

    def work() -> Mask:
        values = scores
        if block > 1:
            values = scores.reshape(rows // block, block, cols // block, block).mean(axis=(1, 3))
        groups = values.reshape(-1, case.group or values.size)
        dropped = groups.shape[1] - case.layout(scores).quota(case.sparsity)
        places = np.argpartition(groups, dropped, axis=1)[:, dropped:]
        mask = np.zeros(values.shape, np.bool_)
        mask.reshape(-1)[places + np.arange(len(groups))[:, None] * groups.shape[1]] = True
        return mask if block == 1 else mask.repeat(block, axis=1).repeat(block, axis=0)

    return work


def topk_work(case: Case, scores: Matrix) -> Work:
    """The places of the highest of each group, unsorted, then True scattered there."""
    import torch

    torch.set_num_threads(1)
    rows, cols = scores.shape
    block = case.block
    given = torch.from_numpy(scores)

    def work() -> object:
        values = given
        if block > 1:
            values = torch.nn.functional.avg_pool2d(given[None, None], block)
        groups = values.reshape(-1, case.group or values.numel())
        places = torch.topk(groups, case.layout(scores).quota(case.sparsity), dim=1, sorted=False).indices
        mask = torch.zeros(groups.shape, dtype=torch.bool).scatter_(1, places, True)
        if block > 1:
            mask = mask.reshape(rows // block, 1, cols // block, 1).expand(-1, block, -1, block)
        return mask.reshape(rows, cols)

    return work


def prune_work(case: Case, scores: Matrix) -> Work | None:
    """PyTorch's pruning module; it knows no groups within a row."""
    import torch
    from torch.nn.utils import prune

    torch.set_num_threads(1)
    if case.group or case.block > 1:
        return None
    given = torch.from_numpy(scores)
    return lambda: prune.L1Unstructured(case.sparsity).compute_mask(given, torch.ones_like(given))


def ao_work(case: Case, scores: Matrix) -> Work:
    """The mask makers of the weight-norm sparsifier, without the module around them."""
    import torch
    from torch.ao.pruning import WeightNormSparsifier

    torch.set_num_threads(1)
    given = torch.from_numpy(scores)
    sparsifier = WeightNormSparsifier()
    if case.group:
        zeros = case.group - case.layout(scores).quota(case.sparsity)
        return lambda: sparsifier._make_block_mask(given, (1, case.group), zeros)
    return lambda: sparsifier._make_tensor_mask(given, given.shape, case.sparsity, (case.block, case.block))


def tfmot_work(case: Case, scores: Matrix) -> Work | None:
    """The mask makers of TF-MOT's pruning wrapper; N:M in groups of 4 only, no banks."""
    os.environ.update(TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl, pruning_schedule

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if case.group not in (None, 4):
        return None
    given = tf.constant(scores)
    schedule = pruning_schedule.ConstantSparsity(case.sparsity, 0)
    pruning = pruning_impl.Pruning(lambda: tf.constant(0), [], schedule, (case.block, case.block), "AVG")
    if case.group:
        upright = tf.constant(np.ascontiguousarray(scores.T))  # its groups run along the inputs of a Keras kernel
        return lambda: np.asarray(pruning._update_mask_sparsity_m_by_n(upright, (2, 4))).T
    return lambda: pruning._maybe_update_block_mask(given)[1]


TOOLS: Mapping[str, Callable[[Case, Matrix], Work | None]] = {
    "harness": harness_work,
    "np.argpartition": argpartition_work,
    "torch.topk": topk_work,
    "torch.nn.utils.prune": prune_work,
    "torch.ao.pruning": ao_work,
    "TF-MOT": tfmot_work,
}


def drawn(rows: int, cols: int, kind: str) -> Matrix:
    """The scores: magnitudes of normal weights, as they are or rounded to thirty-seconds."""
    scores: Matrix = np.abs(np.random.default_rng(0).standard_normal((rows, cols), dtype=np.float32))
    return scores if kind == "continuous" else np.round(scores * 32) / 32


def serve(tool: str, rows: int, cols: int, pipe: Connection) -> None:
    """Work as one tool: (case, kind) in; CPU seconds and the packed mask out, or None for what it cannot do."""
    scores = {kind: drawn(rows, cols, kind) for kind in KINDS}
    ready: dict[tuple[int, str], Work | None] = {}
    while (asked := pipe.recv()) is not None:
        index, kind = asked
        try:
            if asked not in ready:
                ready[asked] = TOOLS[tool](CASES[index], scores[kind])
            work = ready[asked]
        except ImportError:
            work = None
        if work is None:
            pipe.send(None)
            continue
        start = time.process_time()
        mask = work()
        taken = time.process_time() - start
        pipe.send((taken, np.packbits(np.asarray(mask).astype(np.bool_))))


@dataclass
class Timed:
    """What one tool showed on one case: its shortest time, and its mask."""

    seconds: float = float("inf")
    mask: Mask = field(default_factory=lambda: np.zeros(0, np.bool_))


def measured(rows: int, cols: int, rounds: int, tools: list[str]) -> dict[tuple[str, int, str], Timed]:
    """All tools on all cases, in turns; tools that are only shown get two rounds."""
    context = get_context("spawn")
    pipes = {}
    for tool in tools:
        pipes[tool], theirs = context.Pipe()
        context.Process(target=serve, args=(tool, rows, cols, theirs), daemon=True).start()
    found: dict[tuple[str, int, str], Timed] = {}
    for turn in range(rounds):
        for index in range(len(CASES)):
            for kind in KINDS:
                for tool, pipe in pipes.items():
                    if tool in SHOWN and (turn > 1 or kind == "tied"):
                        continue
                    pipe.send((index, kind))
                    if answer := pipe.recv():
                        timed = found.setdefault((tool, index, kind), Timed())
                        timed.seconds = min(timed.seconds, answer[0])
                        timed.mask = np.unpackbits(answer[1], count=rows * cols).astype(np.bool_)
    for pipe in pipes.values():
        pipe.send(None)
    return found


def main() -> int:
    """Print the table; 1 if a goal is missed or a mask of ours or of a rival keeps another number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=1500)
    parser.add_argument("cols", nargs="?", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rivals-only", action="store_true", help="leave out the tools that are only shown")
    given = parser.parse_args()
    if given.rows % 4 or given.cols % 60:
        parser.error("rows must be a multiple of 4 and cols of 60, so that every case's units and groups fit")
    tools = ["harness", *RIVALS, *(() if given.rivals_only else SHOWN)]
    found = measured(given.rows, given.cols, given.rounds, tools)
    print(
        f"{given.rows} x {given.cols}, float32, one thread, CPU time, best of {given.rounds} rounds, "
        f"NumPy {'with' if HAS_AVX512 else 'without'} AVX-512"
    )
    print(f"{'pattern':20} {'scores':11} {'tool':21} {'ms':>8}  {'x ours':>7}  differs from ours in")
    missed, ratios = [], []
    for index, case in enumerate(CASES):
        for kind in KINDS:
            ours = found["harness", index, kind]
            for tool in tools:
                if timed := found.get((tool, index, kind)):
                    ratio, other = timed.seconds / ours.seconds, int(np.count_nonzero(timed.mask != ours.mask))
                    print(f"{case.name:20} {kind:11} {tool:21} {1e3 * timed.seconds:8.1f}  {ratio:7.2f}  {other}")
                    if tool in RIVALS and timed.mask.sum() != ours.mask.sum():
                        missed.append(f"{case.name}: {tool} keeps {timed.mask.sum()}, not {ours.mask.sum()}")
            rivals = [found[tool, index, kind].seconds for tool in RIVALS if (tool, index, kind) in found]
            ratio = min(rivals) / ours.seconds
            if kind == "continuous":
                ratios.append(f"{case.name} {ratio:.2f} (goal {case.goal:g})")
                if ratio < case.goal:
                    missed.append(f"{case.name}: {ratio:.2f} x, goal {case.goal:g} x")
    print("times faster than the fastest exact peer: " + ", ".join(ratios))
    print(f"goals missed: {'; '.join(missed)}" if missed else "all goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
