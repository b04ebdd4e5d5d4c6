"""harness: which sparsity pattern, pruned by which strategy, costs what and buys what."""

__version__ = "0.1.0"
