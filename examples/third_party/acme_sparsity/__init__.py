"""Plugins for harness: every module of this package that has a hook is found."""
