"""YAML 1.2 as every file of the harness is read."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ruamel.yaml import YAML

MOST_VALUES = 100_000
"""Values of a document with every alias written out; more are refused ("billion laughs")."""

MOST_LEVELS = 100


MOST_SIGNS = 60_000
"""Lines and signs of structure in a document: reading takes some 25 microseconds for each."""

_SIGNS = "\n,:[]{}!&*?"

_LONG_TAG = re.compile(r"![^\s,]{1000}")


def check_yaml_size(text: str) -> None:
    """See that a document can be read in a second or two.

    Raises:
        ValueError: it has more structure than anybody writes; the text says how much.
    """
    signs = sum(map(text.count, _SIGNS))
    if signs > MOST_SIGNS:
        raise ValueError(f"at most {MOST_SIGNS} lines and signs such as ',' and ':', got {signs}")
    if _LONG_TAG.search(text):
        raise ValueError("tags of at most 1000 characters, got a longer one")


def yaml12() -> "YAML":
    """A reader of YAML 1.2 that makes plain values and nothing else, and takes tabs where the standard has them."""
    from ruamel.yaml import YAML

    from harness.api._tab_scanner import TabScanner

    yaml = YAML(typ="safe", pure=True)
    # In pure Python: the reader in C knows YAML 1.1 alone, and its scanner cannot be replaced.
    yaml.Scanner = TabScanner
    return yaml


def load_yaml(text: str) -> object:
    """The value of a YAML document: small enough to be walked through.

    Raises:
        ruamel.yaml.error.YAMLError: it is no YAML.
        ValueError: a value cannot be read, or with its aliases written out the document is too large, too deep or
            contains itself.
    """
    try:
        check_yaml_size(text)
    except ValueError as error:
        raise ValueError(f"expected {error}") from None
    try:
        value = yaml12().load(text)
    except RecursionError:
        raise ValueError(f"more than {MOST_LEVELS} levels of nesting") from None
    # ruamel raises what Python raises for impossible values; for a reader of the message it is one kind of mistake.
    except (OverflowError, TypeError, AttributeError) as error:  # a date that is none, a key that is a mapping
        raise ValueError(str(error)) from None
    waiting: list[tuple[object, int]] = [(value, 0)]
    count = 0
    while waiting:
        node, level = waiting.pop()
        count += 1
        if isinstance(node, int) and abs(node) >= 2**63:
            raise ValueError("a whole number beyond 64 bits")
        if count > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values once aliases are written out")
        if level > MOST_LEVELS:
            raise ValueError(f"more than {MOST_LEVELS} levels of nesting, or a value that contains itself")
        inner = [*node.values()] if isinstance(node, dict) else node if isinstance(node, list) else []
        # No more than could be counted: a list with a million aliases would fill the memory before it is refused.
        waiting += [(child, level + 1) for child in inner[: MOST_VALUES + 1]]
    return value
