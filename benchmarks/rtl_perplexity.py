"""Perplexity of a slice of text through simulated Verilog: the same as the evaluation in fixed point, bit for bit.

    python benchmarks/rtl_perplexity.py CELL --store STORE --tokens 16

Every LSTM layer of the cell's language model is emitted whole, and its softmax as a product; what one design gives is
what the next one reads, rounded as its vector is. Logits are compared with those of the evaluation's arithmetic. Needs
Icarus; a softmax of 10,000 words takes seconds per token.
"""

import argparse
import math
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.api import LSTM, Dense, NumPyOperations, batch_rng, lstm_outputs
from harness.discovery.finding import discover
from harness.execution.emitting import cell_model, layer_of, operands_of_cell
from harness.fixed_point import calibrated
from harness.fixed_point.integers import Tapped, layer_integers
from harness.fixed_point.network import Pass


def through(model, found, operands, folder):
    """What a design gives for these vectors, beat by beat, by a simulator; (vectors, rows) of integers."""
    circuit = model.circuit(layer_of(found, operands.layer), operands)
    for name, text in circuit.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    sources = [*map(str, sorted(folder.glob("rtl/*.v"))), str(folder / "bench/accelerator_bench.v")]
    build = ["iverilog", "-g2012", "-I", "rtl", "-s", "accelerator_bench", "-o", "bench.vvp", *sources]
    subprocess.run(build, cwd=folder, check=True)
    began = time.perf_counter()
    said = subprocess.run(
        ["vvp", "-n", "bench.vvp", "+dump=y.hex"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    print(f"{circuit.top}: {circuit.told['shape']}, {circuit.cycles} cycles; {said.strip()}", flush=True)
    print(f"  {time.perf_counter() - began:.0f} s in the simulator", flush=True)
    width = 2 * operands.number_format.activation_bits if operands.cell else operands.output_bits
    words = [int(line, 16) for line in (folder / "y.hex").read_text().split()]
    each = circuit.files["rtl/design.vh"].split("Y_BITS ")[1].split()[0]
    values = np.array(
        [[word >> (at * width) & ((1 << width) - 1) for at in range(int(each) // width)] for word in words]
    )
    values = np.where(values >= 1 << (width - 1), values - (1 << width), values)
    return values.reshape(len(operands.vectors), -1), circuit


def main():
    """Run the cell's slice and print both perplexities."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell")
    parser.add_argument("--store", type=Path, default=Path(".harness"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--pes", type=int, default=8)
    parser.add_argument("--lanes", type=int, default=4)
    given = parser.parse_args()

    registry = discover()
    engine = {"name": "bank", "pes": given.pes, "lanes": given.lanes}
    model = registry.create("hardware", {"name": "cycle_simulator", "engine": engine})
    numbers = model.number_format()
    found = cell_model(given.store, given.cell, None, given.data_dir)
    network, weights, seed = found.problem.network, found.state.weights, found.record.seed
    ops = NumPyOperations()
    exponents = calibrated(found.problem, weights, numbers, ops, seed)
    batch = next(iter(found.problem.batches("test", 0, batch_rng(seed, 0))))
    words, targets = batch.inputs[:1, : given.tokens], batch.targets[:1, : given.tokens].reshape(-1)

    arithmetic = Tapped(ops, network, weights, numbers, exponents)
    tables = {"embedding": ops.array(weights["embedding.table"])}
    logits = ops.numpy(Pass(network, tables).logits(words, arithmetic))
    nats, _ = ops.score(ops.array(logits), targets)

    x = np.asarray(weights["embedding.table"], dtype=np.float64)[words[0]]
    for layer in network.layers:
        if not isinstance(layer, LSTM | Dense):
            continue
        whole = isinstance(layer, LSTM)
        operands = operands_of_cell(found, layer.name, numbers, given.tokens, whole=whole)
        step, top = exponents[layer.name], 1 << (numbers.activation_bits - 1)
        read = np.clip(np.floor(x / 2.0**step + 0.5), -top, top - 1).astype(np.int64)
        if whole:
            read = np.hstack([read, np.zeros((len(read), layer.units), dtype=np.int64)])
        operands = replace(operands, vectors=read)
        with tempfile.TemporaryDirectory() as folder:
            values, circuit = through(model, found, operands, Path(folder))
        if whole:
            order = np.array(circuit.files["mem/order.txt"].split(), dtype=int)
            y = np.empty((len(read), layer.units), dtype=np.int64)
            y[:, order] = values[:, : layer.units]
            assert np.array_equal(y, lstm_outputs(operands))
            x = y * 2.0 ** (2 - 2 * numbers.activation_bits)
        else:
            units = layer_integers(network, weights, layer.name, numbers, exponents).units
            simulated = values[:, : layer.units] * np.ldexp(1.0, units)
    rtl_nats, _ = ops.score(ops.array(simulated), targets)
    print(f"logits that differ: {int((simulated != logits).sum())} of {logits.size}")
    print(f"perplexity of {len(targets)} tokens: evaluation {math.exp(nats / len(targets)):.12g}, ", end="")
    print(f"simulated Verilog {math.exp(rtl_nats / len(targets)):.12g}")


if __name__ == "__main__":
    main()
