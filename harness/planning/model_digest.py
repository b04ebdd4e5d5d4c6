"""Digests of hardware models, and of packages: a cost or a solved target of other code is made anew."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from harness._files import file_sha256
from harness.api import HardwareModel, JsonValue
from harness.planning import code_digest
from harness.planning.stages import digest

_CODE_AND_DATA = (".py", ".yaml", ".yml", ".json", ".toml")


def model_digest(model: HardwareModel) -> str:
    """A digest of everything that decides what a hardware model answers."""
    code: list[JsonValue] = [part.digest for part in code_digest.parts(model)]
    identity = model.identity()
    # A device file of the user's may change under the same name.
    files: list[JsonValue] = [file_sha256(Path(text)) for text in _texts(identity) if _is_file(text)]
    packages = sorted({".".join(type(model).__module__.split(".")[:2]), "harness.api"})
    return digest(
        {
            "identity": identity,
            "code": code,
            "files": files,
            "packages": [package_digest(package) for package in packages],
            "numpy": np.__version__,
        }
    )


@cache
def package_digest(name: str) -> str:
    """A digest of the code and data below a package: what is costed anew is cheap, so comments count too."""
    spec = find_spec(name)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = [Path(spec.origin)] if spec is not None and not folders and spec.origin else []
    files += [path for folder in folders for path in Path(folder).rglob("*") if path.suffix in _CODE_AND_DATA]
    return digest([[path.name, file_sha256(path)] for path in sorted(files)])


def _is_file(text: str) -> bool:
    with suppress(OSError, ValueError):  # a name that is too long, or holds a zero
        return Path(text).is_file()
    return False


def _texts(value: JsonValue | Mapping[str, JsonValue]) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
