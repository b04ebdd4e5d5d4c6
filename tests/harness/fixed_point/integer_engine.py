"""An engine's arithmetic written down again, in integers alone: int64 arrays, shifts and Python's own numbers."""

import math

import numpy as np


def shifted(values, bits):
    """Integers divided by 2^bits, half up; multiplied where bits is negative."""
    values = np.asarray(values, dtype=np.int64)
    return (values + (1 << (bits - 1))) >> bits if bits > 0 else values << -bits


def saturated(values, bits):
    return np.clip(values, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def wrapped(values, bits):
    """What a two's complement register of so many bits holds."""
    return ((values + (1 << (bits - 1))) & ((1 << bits) - 1)) - (1 << (bits - 1))


def vector(values, exponent, bits):
    """Real numbers as integers of one step."""
    return saturated(np.floor(np.asarray(values, dtype=np.float64) / 2.0**exponent + 0.5).astype(np.int64), bits)


def power(largest, bits):
    """The exponent of the smallest step with which `largest` is inside."""
    top = (1 << (bits - 1)) - 1
    return next(e for e in range(-80, 80) if largest <= top * math.ldexp(1.0, e)) if largest else 1 - bits


def weight_integers(weights, form):
    """Integers and the exponent of each row."""
    weights = np.asarray(weights, dtype=np.float64)
    top = (1 << (form.weight_bits - 1)) - 1
    rows = [np.abs(row).max() for row in weights] if form.scaling == "row" else [np.abs(weights).max()] * len(weights)
    exponents = np.array([power(each, form.weight_bits) for each in rows])
    whole = np.floor(weights / np.ldexp(1.0, exponents)[:, None] + 0.5).astype(np.int64)
    return np.clip(whole, -top, top), exponents


def sums(weights, bias, ints, exponent, form):
    """Accumulators of (items, cols) integers, and the exponent of each row's unit."""
    whole, rows = weight_integers(weights, form)
    units = rows + exponent
    biases = np.floor(np.asarray(bias, dtype=np.float64) / np.ldexp(1.0, units) + 0.5).astype(np.int64)
    return wrapped(ints @ whole.T + biases, form.accumulator_bits), units


def looked_up(name, ints, units, bits):
    """Integers of `bits` bits from a table of 256 entries per unit, the arguments being multiples of 2^units."""
    places = np.stack([shifted(column, -(8 + unit)) for column, unit in zip(ints.T, units, strict=True)], axis=1)
    entry = np.arange(-2048, 2048) / 256
    exact = np.tanh(entry) if name == "tanh" else 1 / (1 + np.exp(-entry))
    table = saturated(np.floor(exact * (1 << (bits - 1)) + 0.5).astype(np.int64), bits)
    return table[np.clip(places, -2048, 2047) + 2048]


def lstm(inputs, weights, name, exponents, form, h=None, c=None):
    """Outputs as (integers, exponent), one row per step, of a batch of one."""
    bits, units = form.activation_bits, weights[f"{name}.recurrent_kernel"].shape[1]
    both = np.concatenate([weights[f"{name}.kernel"], weights[f"{name}.recurrent_kernel"]], axis=1)
    e, ec = exponents[name], exponents[f"{name}.state"]
    h = np.zeros(units, dtype=np.int64)
    c = np.zeros(units, dtype=np.int64)
    out = []
    for x in inputs:
        seen = np.concatenate([vector(x, e, bits), h])[None]
        acc, rows = sums(both, weights[f"{name}.bias"], seen, e, form)
        cut = [slice(gate * units, (gate + 1) * units) for gate in range(4)]
        i, f, o = (looked_up("sigmoid", acc[:, cut[k]], rows[cut[k]], bits)[0] for k in (0, 1, 3))
        g = looked_up("tanh", acc[:, cut[2]], rows[cut[2]], bits)[0]
        # f * c has the exponent ec - (bits - 1), i * g has -2 (bits - 1): added at the finer of the two.
        fine = min(ec - (bits - 1), -2 * (bits - 1))
        total = (f * c << (ec - (bits - 1) - fine)) + (i * g << (-2 * (bits - 1) - fine))
        c = saturated(shifted(total, ec - fine), bits)
        t = looked_up("tanh", c[None], np.full(units, ec), bits)[0]
        product = o * t  # exponent -2 (bits - 1)
        h = saturated(shifted(product, e + 2 * (bits - 1)), bits)
        out.append(product * 2.0 ** (-2 * (bits - 1)))
    return np.array(out)


def recurrent_sums(kernel, recurrent, bias, x, h, exponent, form):
    """Accumulators of [kernel | recurrent] times [x | h], both integers of one step."""
    both = np.concatenate([kernel, recurrent], axis=1)
    return sums(both, bias, np.concatenate([x, h])[None], exponent, form)


def gru(inputs, kernel, recurrent, bias, of_h, exponents, form):
    """h of every step of one item (rows r, z, n), r meeting the sum with h before n's table."""
    bits, units = form.activation_bits, recurrent.shape[1]
    e, es = exponents["gru"], exponents["gru.state"]
    none = np.zeros((units, kernel.shape[1])), np.zeros((units, units))
    wide = np.concatenate([kernel, none[0]])
    high = np.concatenate([recurrent[: 2 * units], none[1], recurrent[2 * units :]])
    biases = np.concatenate([bias[: 2 * units] + of_h[: 2 * units], bias[2 * units :], of_h[2 * units :]])
    cut = [slice(part * units, (part + 1) * units) for part in range(4)]
    held, out = np.zeros(units, dtype=np.int64), []
    for x in inputs:
        acc, rows = recurrent_sums(wide, high, biases, vector(x, e, bits), vector(held * 2.0**es, e, bits), e, form)
        r, z = (looked_up("sigmoid", acc[:, cut[k]], rows[cut[k]], bits)[0] for k in (0, 1))
        of_state = shifted(r * acc[0, cut[3]], bits - 1)
        found = []
        for x_part, h_part, one, other in zip(acc[0, cut[2]], of_state, rows[cut[2]], rows[cut[3]], strict=True):
            fine = min(one, other)
            total = (int(x_part) << int(one - fine)) + (int(h_part) << int(other - fine))
            found.append(looked_up("tanh", np.array([[total]]), np.array([fine]), bits)[0, 0])
        n = np.array(found)
        top = 1 << (bits - 1)
        # (1 - z) n has twice the fraction of a gate, z h that of a gate and the state's.
        fine = min(-2 * (bits - 1), es - (bits - 1))
        total = ((top - z) * n << (-2 * (bits - 1) - fine)) + (z * held << (es - (bits - 1) - fine))
        held = saturated(shifted(total, es - fine), bits)
        out.append(held * 2.0**es)
    return np.array(out)
