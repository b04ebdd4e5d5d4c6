"""harness: which sparsity pattern, pruned by which strategy, costs what and buys what."""

__version__ = "0.1.0"

DISTRIBUTION = "sparsity-harness"
"""What the package is called on an index, where `harness` is somebody else's; import and command are `harness`."""
