"""Built-in strategies, found through the entry-point group `harness.plugins`."""
