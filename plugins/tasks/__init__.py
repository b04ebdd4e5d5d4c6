"""Built-in tasks, found through the entry-point group `harness.plugins`."""
