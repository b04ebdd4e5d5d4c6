"""Built-in backends, found through the entry-point group `harness.plugins`."""
