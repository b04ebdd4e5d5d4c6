"""How runs and cells stand, from the store alone: what `status`, `logs`, `show` and `why` print."""
