"""Engines: one file each; a third party registers its own with the hook `register_engine`."""
