"""Runs by hypothesis: records of a small grid, some of whose cells failed, were skipped, diverged or have no cost."""

from hypothesis import strategies as st

from harness.results.records import Record

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
    )  # fmt: skip


_cost = st.one_of(
    st.just({"model": "fpga_analytic", "reason": HOSTILE}),
    st.builds(
        lambda cycles: {"model": "fpga_analytic", "engine": "bank", "cycles": cycles, "latency_us": cycles / 200,
                        "speedup": 8000 / cycles, "fits": cycles < 4000, "ram_blocks": cycles // 10},
        st.integers(100, 8000),
    ),
)  # fmt: skip
