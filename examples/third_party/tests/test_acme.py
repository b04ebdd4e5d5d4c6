"""The checks of harness, inherited: each class tests one plugin, its import, and what it does to the process."""

import numpy as np
from acme_sparsity.column_quota import ColumnQuota
from acme_sparsity.quality_kept import QualityKept
from acme_sparsity.two_step import TwoStep

from harness.testing import ColumnChecks, PatternChecks, StrategyChecks


class TestColumnQuota(PatternChecks):
    plugin = ColumnQuota()


class TestTwoStep(StrategyChecks):
    plugin = TwoStep(epochs=1)


class TestQualityKept(ColumnChecks):
    plugin = QualityKept()


def test_every_column_keeps_equally_many_weights():
    scores = np.random.default_rng(0).random((8, 5))

    kept = ColumnQuota().mask(scores, sparsity=0.75)

    assert kept.sum(axis=0).tolist() == [2, 2, 2, 2, 2]
