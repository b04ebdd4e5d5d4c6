"""Scores become masks: the selection kernel, and a mask update over a whole scope."""
