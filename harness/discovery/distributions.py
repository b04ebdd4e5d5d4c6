"""Whose code a plugin is: the installed distribution whose entry point offers it, or a file of the user's."""

from collections.abc import Mapping
from importlib.metadata import Distribution, entry_points

from harness.user_files import folder_of

GROUP = "harness.plugins"
"""The entry-point group; its entries name packages of plugin modules, or single modules."""


def offering() -> dict[str, Distribution]:
    """The distributions that offer plugins, by the module that their entry point names. Reads all metadata: slow."""
    return {entry.module: entry.dist for entry in entry_points(group=GROUP) if entry.dist is not None}


def distribution_of(module: str, offered: Mapping[str, Distribution]) -> Distribution | None:
    """The distribution that a module belongs to, as far as entry points tell.

    Args:
        module: its full name.
        offered: as `offering` gives it.
    """
    top = module.partition(".")[0]
    # A namespace is shared by several distributions: the longest name that fits decides.
    fitting = [entry for entry in offered if module == entry or module.startswith(f"{entry}.")]
    fitting = fitting or [entry for entry in offered if entry.partition(".")[0] == top]
    return offered[max(fitting, key=len)] if fitting else None


def file_name(module: str) -> str:
    """The name of a user's file, `my_pattern.py`, from the name of its module; empty for what is installed."""
    return "" if folder_of(module) is None else f"{module.rpartition('.')[2]}.py"
