"""Built-in plugins, imported as `harness_plugins`."""
