"""YAML 1.2 as every file of the harness is read."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ruamel.yaml import YAML


def yaml12() -> "YAML":
    """A reader of YAML 1.2 that makes plain values and nothing else, and takes tabs where the standard has them."""
    from ruamel.yaml import YAML

    from harness.api._tab_scanner import TabScanner

    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = TabScanner
    return yaml
