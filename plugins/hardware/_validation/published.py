"""Rules whose target is a published accelerator: the engine itself, wherever one of ours covers it."""

import numpy as np

from harness.api import Conditions, Mask, Part, Product
from harness.api.validation import Check

from ..engines._expectation import BankFill, row_distribution
from ..engines.column_fifo import ColumnFifo
from ..engines.csr_stream import CsrStream
from ..engines.csr_stream.stream import StreamFit, fit
from ..engines.mcbbs_systolic import McbbsSystolic
from .layers import macs, pruned, resnet50, vgg16
from .own import matrix
from .targets import Evaluation, Rule, Target, Targets, allowed, compared

_EIE_PES, _EIE_MHZ = 64, 800  # 64 PEs x 2 operations x 800 MHz = the 102 GOPS of the abstract
_FIFO_DEPTH = 8  # of both EIE and ESE
_HPIPE_MULTIPLIERS = 11520  # 5,760 DSP blocks of a Stratix 10 GX 2800, two 18-bit products each
_HISPARSE_ROWS, _HISPARSE_COLS = 512, 33000
_ESE_MATRICES = ((4096, 665), (512, 1024))  # [W_x | W_h] of 153 + 512 inputs, and the projection
_BBS_MULTIPLIERS = (2048, 4096)
_TAPS = 576
_OPERATIONS = {"gru": 12, "lstm": 16}  # times units squared, per step


def _ese_ideal(rule: Rule, targets: Targets) -> list[Check]:
    modelled = _ese_ideal_us(targets)
    target = targets.figure("ese", "ideal_us")
    what = "time of one step if no PE ever waits"
    return [compared(rule, what, "column_fifo (arithmetic)", modelled, target, "us", within=allowed(rule, targets))]


def _ese_ideal_us(targets: Targets) -> float:
    nnz, pes = targets.figure("ese", "nnz").value, targets.figure("ese", "pes_per_channel").value
    # Weights over PEs are cycles, over MHz microseconds.
    return nnz / pes / targets.figure("ese", "clock_mhz").value


def _ese_real(rule: Rule, targets: Targets) -> list[Check]:
    """Two reports: what the recurrence sees, and the same beside a stream of weights whose bandwidth was fitted."""
    pes, clock = int(targets.figure("ese", "pes_per_channel").value), targets.figure("ese", "clock_mhz").value
    engine = ColumnFifo(pes=pes, groups=1, fifo_depth=_FIFO_DEPTH)
    density, target = targets.figure("ese", "density").value, targets.figure("ese", "latency_us")
    # Their masks are not published; density is all that is known, so one is drawn.
    rng = np.random.default_rng(0)
    cycles = sum(_column_cycles(rng.random(size, dtype=np.float32) < density, engine) for size in _ESE_MATRICES)
    alone = cycles / clock
    nnz = targets.figure("ese", "nnz").value
    gbytes = nnz * 2 / target.value / 1e3  # two bytes per weight: 12 bits and its index
    what = "one step for 32 utterances"
    return [
        compared(rule, f"{what}, compute and imbalance", "column_fifo", alone, target, "us",
               within=allowed(rule, targets),
               note="weights on chip, no element-wise part, random masks of the derived density"),
        compared(rule, f"{what}, weights streamed", "column_fifo", max(alone, nnz * 2 / gbytes / 1e3), target, "us",
               parameters={"weight_stream_gbytes_per_s": gbytes},
               note="one parameter fitted to this one point: it proves nothing"),
    ]  # fmt: skip


def _column_cycles(mask: Mask, engine: ColumnFifo) -> float:
    product = matrix(mask)
    # The engine's sizes are given, so that the budget decides nothing.
    return float(engine.simulate(product, engine.fixed_shape([product], 1), Conditions()).cycles)


def _bbs_latency(rule: Rule, targets: Targets) -> list[Check]:
    target, clock = targets.figure("bbs", "latency_us"), targets.figure("bbs", "clock_mhz").value
    # BBS prunes the LSTM of ESE, so its size is taken from there.
    nnz = targets.figure("ese", "weights").value * (1 - targets.figure("bbs", "sparsity").share())
    model, found = "bank (lower bound)", []
    for multipliers in _BBS_MULTIPLIERS:
        issue_us = float(np.ceil(nnz / multipliers)) / clock
        fitted = {"multipliers (assumed)": float(multipliers), "t_serial_us": target.value - issue_us}
        found += [
            compared(rule, f"issue cycles alone, {multipliers} multipliers", model, issue_us, target, "us",
                   within=allowed(rule, targets),
                   parameters={"multipliers (assumed)": float(multipliers)},
                   note=f"{target.value / issue_us:.1f} times too fast: a step has a serial part too"),
            compared(rule, f"with a serial part, {multipliers} multipliers", model,
                   issue_us + fitted["t_serial_us"], target, "us", parameters=fitted,
                   note="the serial part is fitted to this one point: it proves nothing"),
        ]  # fmt: skip
    return found


def _mcbbs(rule: Rule, targets: Targets) -> list[Check]:
    """The whole of VGG-16 and ResNet-50 on both bitstreams; one overhead per layer from the first ResNet-50 row."""
    networks = {"vgg16": vgg16(), "resnet50": resnet50()}
    cases = {(name, bits): _mcbbs_ms(targets, name, bits) for name in networks for bits in ("c1r4p16", "c2r4p8")}
    fitted_on = ("resnet50", "c1r4p16")
    measured = {case: targets.figure("mcbbs", case[1], f"{case[0]}_fc_conv_ms") for case in cases}
    # The one parameter, and from the row that is then left out of the comparison.
    t_layer_us = (measured[fitted_on].value - cases[fitted_on]) * 1e3 / len(networks[fitted_on[0]])
    return [
        compared(
            rule,
            f"{name} {bits.upper()}, convolutions and fully connected layers",
            "mcbbs_systolic",
            estimate + len(networks[name]) * t_layer_us / 1e3,
            measured[name, bits],
            "ms",
            within=allowed(rule, targets),
            parameters={"t_layer_us": t_layer_us},
            note=f"{estimate:.3f} ms without the overhead per layer, which is fitted on ResNet-50 C1R4P16 alone",
        )
        for (name, bits), estimate in cases.items()
        if (name, bits) != fitted_on
    ]


_RANGE = 4
"""R of both published bitstreams: C1R4P16 and C2R4P8."""


def _mcbbs_ms(targets: Targets, network: str, bits: str) -> float:
    """Milliseconds of a network without any overhead per layer."""
    cluster = 1 if bits == "c1r4p16" else 2
    clock = targets.figure("mcbbs", bits, "clock_mhz").value
    engine = McbbsSystolic(
        pe_rows=int(targets.figure("mcbbs", "array", "rows").value),
        pe_columns=int(targets.figure("mcbbs", "array", "cols").value),
        cluster=cluster,
        range_clusters=_RANGE,
        layer_overhead_us=0,
    )
    # Per cycle of that bitstream's own clock.
    delivered = targets.figure("mcbbs", "ddr_gbytes_per_s").value * 1e3 / clock
    conditions = Conditions(weight_bits=8, activation_bits=8, clock_mhz=clock, bytes_per_cycle=delivered)
    products = pruned(vgg16() if network == "vgg16" else resnet50(), _RANGE)
    per_pe = targets.figure("mcbbs", "array", "multipliers_per_pe").value
    shape = engine.fixed_shape(products, int(per_pe))
    return float(sum(engine.expect(product, shape, conditions).cycles for product in products)) / clock / 1e3


def _hisparse(rule: Rule, targets: Targets) -> list[Check]:
    """Start-up and rate from the densest and the sparsest point; the points between are predicted."""
    rows = range(len(targets.table("hisparse", "points")))
    found_points = ((_sparsity(targets, row), targets.cell("hisparse", "points", row, "gops")) for row in rows)
    # Densest first, whatever order the file has them in.
    points = sorted(found_points, key=lambda point: point[0])
    nnz = [_HISPARSE_ROWS * _HISPARSE_COLS * (1 - sparsity) for sparsity, _ in points]
    times = [2 * count / target.value / 1e3 for count, (_, target) in zip(nnz, points, strict=True)]  # microseconds
    within = allowed(rule, targets)
    try:
        line = fit((nnz[0], times[0]), (nnz[-1], times[-1]))
        engine = _stream_engine(line, targets)
    except ValueError as error:
        note = f"the two calibration points fit no such engine: {error}"
        return [compared(rule, f"SpMV at {sparsity:.0%}", "csr_stream", None, target, "GOPS", within=within, note=note)
                for sparsity, target in points[1:-1]]  # fmt: skip
    conditions = _hisparse_conditions(targets)
    found = []
    for (sparsity, target), count in list(zip(points, nnz, strict=True))[1:-1]:
        product = Product("spmv", (Part("spmv.kernel", _HISPARSE_ROWS, _HISPARSE_COLS, None, round(count)),))
        run = engine.expect(product, engine.fixed_shape([product], 1), conditions)
        gops = 2 * count / (float(run.cycles) / conditions.clock_mhz) / 1e3
        parameters = {"t0_us": line.start_up_us, "gpairs_per_s": line.pairs_per_us / 1e3}
        found.append(compared(rule, f"SpMV at {sparsity:.0%}", "csr_stream", gops, target, "GOPS", within=within,
                            parameters=parameters, note="fitted on the two outer points alone"))  # fmt: skip
    return found


def _sparsity(targets: Targets, row: int) -> float:
    return targets.cell("hisparse", "points", row, "sparsity").share()


def _stream_engine(line: StreamFit, targets: Targets) -> CsrStream:
    """The engine with the fitted start-up and rate.

    Raises:
        ValueError: the rate is above the peak, or the start-up below zero.
    """
    channels = int(targets.figure("hisparse", "matrix_channels").value)
    peak = channels * CsrStream().pairs_per_cycle * targets.figure("hisparse", "clock_mhz").value
    return CsrStream(channels=channels, occupancy=line.pairs_per_us / peak, start_up_us=line.start_up_us)


def _hisparse_conditions(targets: Targets) -> Conditions:
    clock = targets.figure("hisparse", "clock_mhz").value
    delivered = targets.figure("hisparse", "bandwidth_gbytes_per_s").value * 1e3 / clock
    return Conditions(weight_bits=32, clock_mhz=clock, bytes_per_cycle=delivered)


def _tap_banking(rule: Rule, targets: Targets) -> list[Check]:
    """E[max of T banks] over their mean, at the one density that suits both figures best."""
    # One density for both: with one each, both would fit and nothing would be tested.
    found = {lanes: targets.figure("tap_banking", "penalty", f"t{lanes}") for lanes in (4, 8)}

    def worst(density: float) -> float:
        return max(abs(_penalty(lanes, density) / target.value - 1) for lanes, target in found.items())

    density = min(np.arange(0.01, 1.0, 0.005).tolist(), key=worst)
    return [
        compared(rule, f"penalty of {lanes} lanes that wait for each other", "bank (expectation)",
               _penalty(lanes, density), target, "times", within=allowed(rule, targets),
               parameters={"density": density}, note="one density fitted to two points")
        for lanes, target in found.items()
    ]  # fmt: skip


def _penalty(lanes: int, density: float) -> float:
    bank = _TAPS // lanes
    return row_distribution((BankFill(bank, density),) * lanes, lanes).mean / (bank * density)


def _brainwave(rule: Rule, targets: Targets) -> list[Check]:
    """max(t_chain, t_compute) per step, t_chain from the 1024-unit row of each cell."""
    rows = targets.table("brainwave", "deepbench")
    peak = 2 * targets.figure("brainwave", "macs").value * targets.figure("brainwave", "clock_mhz").value  # per us
    units = [int(targets.cell("brainwave", "deepbench", row, "hidden").value) for row in range(len(rows))]
    steps = [targets.cell("brainwave", "deepbench", row, "steps").value for row in range(len(rows))]
    chains = {
        str(entry["cell"]): targets.cell("brainwave", "deepbench", row, "us_per_step").value
        for row, entry in enumerate(rows)
        if units[row] == 1024
    }
    found = []
    for row, entry in enumerate(rows):
        cell = str(entry["cell"])
        if units[row] == 1024 or steps[row] == 1:  # the calibration, and a row that is all start-up
            continue
        if cell not in chains or cell not in _OPERATIONS:
            known = ", ".join(_OPERATIONS)
            raise ValueError(f"brainwave.deepbench needs cells of {known}, each with a 1024-unit row, got {cell!r}")
        operations = _OPERATIONS[cell] * units[row] ** 2
        target = targets.cell("brainwave", "deepbench", row, "us_per_step")
        found.append(
            compared(rule, f"{cell} of {units[row]} units, one step", "peak with a chain floor",
                   max(chains[cell], operations / peak), target, "us", within=allowed(rule, targets),
                   parameters={"t_chain_us": chains[cell]}, note="t_chain is the 1024-unit row of the same cell")
        )  # fmt: skip
    return found


def _eie_rows(targets: Targets) -> list[tuple[str, float, Target]]:
    """Layer, modelled and published microseconds of every layer."""
    engine = ColumnFifo(pes=_EIE_PES, groups=1, fifo_depth=_FIFO_DEPTH, index_bits=4, trailing_runs="padded")
    rng = np.random.default_rng(0)
    found = []
    for row, entry in enumerate(targets.table("eie", "layers")):
        rows, cols, density, active = (
            targets.cell("eie", "layers", row, column).value
            for column in ("rows", "cols", "weight_density", "activation_density")
        )
        # Columns with a zero input are skipped, so they need not be drawn.
        mask = rng.random((int(rows), max(1, round(cols * active))), dtype=np.float32) < density
        cycles = _column_cycles(mask, engine)
        target = targets.cell("eie", "layers", row, "actual_us")
        found.append((str(entry["layer"]), cycles / _EIE_MHZ, target))
    return found


_EIE_NOTE = (
    "column recurrence on random masks, D = 8, 4-bit runs, the run behind the last weight of a slice padded too: "
    "without that the two VGG layers take a sixth less"
)


def _eie_alexnet(rule: Rule, targets: Targets) -> list[Check]:
    modelled = sum(time for layer, time, _ in _eie_rows(targets) if layer.startswith("alex"))
    frames = targets.figure("eie", "alexnet_fc_frames_per_s")
    # The time of one frame, which is what the model gives.
    target = Target(1e6 / frames.value, frames.origin, frames.source, frames.place)
    return [
        compared(rule, "the three AlexNet layers together", "column_fifo", modelled, target, "us", note=_EIE_NOTE,
               within=allowed(rule, targets))
    ]  # fmt: skip


def _eie_nine(rule: Rule, targets: Targets) -> list[Check]:
    within = allowed(rule, targets)
    return [
        compared(rule, layer, "column_fifo", time, target, "us", note=_EIE_NOTE, within=within)
        for layer, time, target in _eie_rows(targets)
    ]


def _spartus(rule: Rule, targets: Targets) -> list[Check]:
    macs_, clock = targets.figure("spartus", "macs").value, targets.figure("spartus", "clock_mhz").value
    target = targets.figure("spartus", "effective_tops")
    gain = targets.figure("spartus", "gain_over_peak").value
    note = f"order only: the paper reports a gain of {gain:g} over this peak, which needs temporal sparsity too"
    peak = 2 * macs_ * clock / 1e6
    return [
        compared(
            rule,
            "all multipliers busy on dense weights",
            "peak (arithmetic)",
            peak,
            target,
            "TOPS",
            within=allowed(rule, targets),
            note=note,
        )
    ]


def _hpipe(rule: Rule, targets: Targets) -> list[Check]:
    clock, target = targets.figure("hpipe", "poster_clock_mhz").value, targets.figure("hpipe", "images_per_s")
    dense = _HPIPE_MULTIPLIERS * clock * 1e6 / macs(resnet50())
    note = (
        f"order only: a dense ResNet-50 on all multipliers of the device at the poster's {clock:g} MHz; the rest is "
        "sparsity, whose degree per layer is not published here, and no layers on engines of their own are costed here"
    )
    return [
        compared(
            rule,
            "ResNet-50, batch 1",
            "peak (arithmetic)",
            dense,
            target,
            "images/s",
            within=allowed(rule, targets),
            note=note,
        )
    ]


PUBLISHED: dict[str, Evaluation] = {
    "ese_ideal": _ese_ideal,
    "ese_real": _ese_real,
    "bbs_latency": _bbs_latency,
    "mcbbs": _mcbbs,
    "hisparse": _hisparse,
    "tap_banking": _tap_banking,
    "brainwave_floor": _brainwave,
    "eie_alexnet": _eie_alexnet,
    "eie_nine": _eie_nine,
    "spartus": _spartus,
    "hpipe": _hpipe,
}
"""Rules by id."""
