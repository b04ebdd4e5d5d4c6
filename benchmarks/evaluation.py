"""Scoring a test text word by word in one stream: `python -m benchmarks.evaluation [--data-dir DIR]`.

The test perplexity of a language model is defined at batch 1, each word predicted from all before. The harness reads
the text in segments and carries the state; the peer is the loop that the definition suggests, one step at a time
through `nn.LSTM` and `cross_entropy`, on the same weights, after a short training. Both score the whole test text, one
thread each. The loop's way is long, so that it is cut into parts and the harness scores everything before, between and
after them: whatever else the machine does falls on both. Times are CPU seconds, the harness's the mean of its turns,
with its count of the density of activations. Ends with exit code 1 where a goal is missed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.training import PlainModel, Source, session_of, trained, zipf_text
from harness.api import State

TRAINED_STEPS, PARTS = 50, 4
SPEED_GOAL, PERPLEXITY_GOAL = 3.0, 1e-6

Turn = tuple[float, float, int]
"""CPU seconds, nats and words of one turn."""


def harness_turns(source: Source, state: State) -> Iterator[Turn]:
    """Every turn scores the whole text."""
    session = session_of(source.problem(TRAINED_STEPS), "float32")
    session.load(state)
    session.evaluate("valid")  # caches, buffers and kernels are made once
    while True:
        begin = time.process_time()
        found = session.evaluate("test")
        yield time.process_time() - begin, found.nats, found.items


def plain_turns(source: Source, state: State) -> Iterator[Turn]:
    """Every turn scores the next part, a step at a time."""
    import torch

    problem = source.problem(TRAINED_STEPS)
    model = PlainModel(state.weights)
    segments = list(problem.batches("test", 0, np.random.default_rng(0)))
    cuts = [part * len(segments) // PARTS for part in range(PARTS + 1)]
    for first, end in pairwise(cuts):
        begin, nats, words = time.process_time(), 0.0, 0
        with torch.inference_mode():
            for segment in segments[first:end]:
                for step in range(segment.inputs.shape[1]):
                    here = np.s_[:, step : step + 1]
                    nats += model.nats(segment.inputs[here], segment.targets[here]).item()
                words += segment.targets.size
        yield time.process_time() - begin, nats, words


def serve(ours: bool, source: Source, state: State, pipe: Connection) -> None:
    """A turn per message; None ends it."""
    found = (harness_turns if ours else plain_turns)(source, state)
    pipe.send(None)
    while pipe.recv() is not None:
        pipe.send(next(found))


def trained_state(source: Source) -> State:
    """Weights that have learnt a little: untrained ones find every word equally likely."""
    session = session_of(source.problem(TRAINED_STEPS), "float32")
    trained(session)
    return session.state()


def measured(source: Source) -> tuple[list[Turn], list[Turn]]:
    """The turns of the harness and of the loop."""
    context = get_context("spawn")
    with context.Pool(1) as pool:
        state = pool.apply(trained_state, (source,))
    pipes = {}
    for ours in (True, False):
        pipes[ours], theirs = context.Pipe()
        context.Process(target=serve, args=(ours, source, state, theirs), daemon=True).start()
        pipes[ours].recv()
    turns: dict[bool, list[Turn]] = {True: [], False: []}
    for ours in (True, *(False, True) * PARTS):
        pipes[ours].send("go")
        turns[ours].append(pipes[ours].recv())
    for pipe in pipes.values():
        pipe.send(None)
    return turns[True], turns[False]


def main() -> int:
    """Measure, print a table and the goals; 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-dir", type=Path, help="the data folder that has `ptb`; without it, random words")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Source(options.data_dir, "ptb") if options.data_dir else Source(Path(folder), "text")
        if source.corpus == "text":
            zipf_text(source.folder)
        ours, plain = measured(source)
    words = sum(turn[2] for turn in plain)
    if {turn[2] for turn in ours} != {words}:
        raise RuntimeError(f"both have to score the same words, the loop scored {words}")
    fast, slow = "harness, in segments", "a step at a time"
    seconds = {fast: sum(turn[0] for turn in ours) / len(ours), slow: sum(turn[0] for turn in plain)}
    perplexity = {fast: np.exp(ours[0][1] / words), slow: np.exp(sum(turn[1] for turn in plain) / words)}
    print(f"{source.corpus}, test text, {words} words, batch 1, float32, one thread, CPU time")
    print(f"{'way':22} {'seconds':>9} {'words/s':>9} {'perplexity':>14}")
    for way, taken in seconds.items():
        print(f"{way:22} {taken:9.2f} {words / taken:9.0f} {perplexity[way]:14.6f}")
    ratio, apart = seconds[slow] / seconds[fast], abs(perplexity[fast] / perplexity[slow] - 1)
    print()
    print(f"{'met' if ratio >= SPEED_GOAL else 'MISSED':6}  {ratio:.2f} x as fast as the loop; goal {SPEED_GOAL:g}")
    print(
        f"{'met' if apart <= PERPLEXITY_GOAL else 'MISSED':6}  perplexities {apart:.1e} apart; goal {PERPLEXITY_GOAL:g}"
    )
    missed = (ratio < SPEED_GOAL) + (apart > PERPLEXITY_GOAL)
    print(f"evaluation: {2 - missed} of 2 goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
