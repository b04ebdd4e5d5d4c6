"""Built-in schedules, found through the entry-point group `harness.plugins`."""
