"""Built-in hardware, found through the entry-point group `harness.plugins`."""
