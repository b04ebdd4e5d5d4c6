"""Runs for tests of reports: by hypothesis, and one of each fate; some cells failed, were skipped or have no cost."""

from hypothesis import strategies as st

from harness.results.records import Record, Stored

PATTERNS, STRATEGIES, LEVELS = ("unstructured", "bank_balanced(banks=4)", "n_m"), ("fine_tuning", "gradual"), (0.5, 0.9)
HOSTILE = "<script>alert('x')</script> & \"quotes\" | 50 % _under_ \\back {brace} $x$ #1 ~ ^"

_numbers = st.floats(0.5, 5000, allow_nan=False).map(lambda number: float(f"{number:.6g}"))
_statuses = st.sampled_from(("ok", "ok", "ok", "cached", "failed", "skipped", "diverged", "planned"))


@st.composite
def runs(draw):
    """One record per planned cell: a dense baseline and a few pruned settings, over one to three seeds."""
    seeds = range(draw(st.integers(1, 3)))
    settings = draw(
        st.lists(
            st.tuples(st.sampled_from(PATTERNS), st.sampled_from(STRATEGIES), st.sampled_from(LEVELS)),
            min_size=1, max_size=6, unique=True,
        )
    )  # fmt: skip
    return [_record(draw, setting, seed) for setting in (("dense", "dense", 0.0), *settings) for seed in seeds]


def _record(draw, setting, seed):
    pattern, strategy, sparsity = setting
    status = draw(_statuses)
    done = status in ("ok", "cached")
    reason = "" if done or status == "planned" else draw(st.sampled_from(("out of luck", HOSTILE, "the loss is nan")))
    return Record(
        run="any", cell=f"{pattern}-{strategy}-{sparsity}-{seed}", task="lstm_lm", backend="torch", pattern=pattern,
        strategy=strategy, scope=("lstm",), target_sparsity=sparsity, seed=seed, status=status, reason=reason,
        sparsity=sparsity if done else None, model_sparsity=sparsity / 2 if done else None, metric="perplexity",
        value=draw(_numbers) if done else None, valid_value=draw(_numbers) if done else None,
        valid_history=tuple(draw(st.lists(_numbers, max_size=3))) if done else (),
        tensor_sparsity={"a": sparsity, "b": sparsity / 2} if done and sparsity else {},
        total_epochs=6, retrain_epochs=2 if sparsity else 0,
        hardware={"fpga_analytic": draw(_cost)} if done else {},
        storage={"16": _stored(sparsity)} if done and draw(st.booleans()) else {},
    )  # fmt: skip


def _stored(sparsity):
    """The storage of two matrices of a thousand weights of 16 bits."""
    kept = round(1000 * (1 - sparsity))
    parts = {"a": {"format": "csb", "bits": 20 * kept}, "b": {"format": "bitmap", "bits": 1000 + 16 * kept}}
    if not sparsity:
        parts = {name: {"format": "dense", "bits": 16_000} for name in parts}
    return Stored(bits=sum(part["bits"] for part in parts.values()), dense_bits=32_000, tensors=parts)


_cost = st.one_of(
    st.just({"model": "fpga_analytic", "reason": HOSTILE}),
    st.builds(
        lambda cycles: {"model": "fpga_analytic", "engine": "bank", "cycles": cycles, "latency_us": cycles / 200,
                        "speedup": 8000 / cycles, "fits": cycles < 4000, "ram_blocks": cycles // 10},
        st.integers(100, 8000),
    ),
)  # fmt: skip


def every_fate():
    """Three seeds of a grid in which each way to have no result happens once."""
    records = []
    for pattern, strategy, sparsity in (("dense", "dense", 0.0), *((p, s, 0.9) for p in PATTERNS for s in STRATEGIES)):
        for seed in range(3):
            value = 100 + 20 * sparsity + seed + len(pattern) / 10
            cost = {
                "model": "fpga_analytic",
                "engine": "bank",
                "cycles": 2000 - 10 * len(strategy),
                "latency_us": 10.0,
                "speedup": 4.0,
                "fits": True,
                "ram_blocks": 99 + len(pattern),
            }
            records.append(
                Record(
                    run="fates-1a2b3c", cell=f"{pattern}{strategy}{seed}", task="lstm_lm", backend="torch",
                    pattern=pattern, strategy=strategy, scope=("lstm",), target_sparsity=sparsity, sparsity=sparsity,
                    model_sparsity=sparsity / 2, seed=seed, status="ok", metric="perplexity", value=value,
                    valid_value=value + 1, valid_history=(value + 40, value + 9, value + 1), total_epochs=3,
                    retrain_epochs=1 if sparsity else 0, hardware={"fpga_analytic": cost}, device="cpu", threads=1,
                    tensor_sparsity={"a": sparsity, "b": sparsity / 2} if sparsity else {},
                    storage={"16": _stored(sparsity)},
                    versions={"harness": "0.1.0", "torch": "2.9.0"}, facts={"corpus": "synthetic"},
                )
            )  # fmt: skip
    fates = {
        4: ("failed", "RuntimeError: out of luck"),
        7: ("diverged", "the loss became nan at step 7"),
        10: ("skipped", "n_m: 2:4 reaches 0.5"),
        13: ("planned", ""),
        16: ("oom", "1 PiB is too much"),
    }
    nothing = {
        "value": None,
        "valid_value": None,
        "sparsity": None,
        "model_sparsity": None,
        "hardware": {},
        "storage": {},
    }
    for place, (status, reason) in fates.items():
        records[place] = records[place].model_copy(update={"status": status, "reason": reason, **nothing})
    records[5] = records[5].model_copy(update={"hardware": {"fpga_analytic": {"reason": "no such engine"}}})
    return records
