"""Scores become masks over a whole scope: allocation, coupling, checks of the answer."""
