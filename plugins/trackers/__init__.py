"""Trackers that come with the harness."""
