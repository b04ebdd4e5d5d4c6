"""Masks and weights as files: storage formats, packed archives, memory files for RTL, and files that users bring."""
