"""Units and groups over one matrix, and which of its scores are kept: NumPy alone, below the interface of patterns."""
