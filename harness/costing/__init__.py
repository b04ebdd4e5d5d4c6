"""Costs of masks on hardware models without any training: what `harness hardware` prints."""
