"""Built-in patterns, found through the entry-point group `harness.plugins`."""
