"""Built-in scores, found through the entry-point group `harness.plugins`."""
