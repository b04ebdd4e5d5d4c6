"""What the tasks share: seeded initial weights, digests and where data files are looked for."""

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.api import Array, DataError, Tensor, data_places


def uniform(tensor: Tensor, limit: float, seed: int) -> NDArray[np.float32]:
    """Initial weights from a uniform distribution in [-limit, limit).

    The generator depends on the seed and the tensor's name alone, so a tensor's weights stay the same when another one
    joins the model.

    Shapes:
        -> the shape of the tensor.
    """
    # A stream for each tensor by its name: a tensor more or less in a model changes no other one's weights.
    rng = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())])
    return rng.uniform(-limit, limit, tensor.shape).astype(np.float32)


def digest(parts: Sequence[str], arrays: Sequence[Array]) -> str:
    """SHA-256 over the parts and over type, shape and bytes of the arrays."""
    sha = hashlib.sha256()
    for part in parts:
        # With its length, so that ("ab", "c") and ("a", "bc") are two digests.
        sha.update(f"{len(part)}:{part}".encode())
    for array in arrays:
        # Little endian whatever the machine, so that a fingerprint is the same everywhere.
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        sha.update(f"{plain.dtype.str}{plain.shape}".encode())
        sha.update(plain.tobytes())
    return sha.hexdigest()


def find(data_dir: Path, folder: str, names: Sequence[str]) -> Path | None:
    """The first of these files in the folders of a data set; whether it is a plain one, reading it tells."""
    candidates = (place / name for place in data_places(data_dir, folder) for name in names)
    # Some archives unpack every file into a folder of the same name.
    found = (path / path.name if path.is_dir() else path for path in candidates)
    return next((path for path in found if os.path.lexists(path)), None)


def given(data_dir: Path | None, folder: str, task: str) -> Path:
    """The data folder.

    Raises:
        DataError: there is none.
    """
    if data_dir is None:
        raise DataError(
            f"{task} needs the data set '{folder}' and no data folder is given; pass `--data-dir DIR` or set "
            f"HARNESS_DATA (`harness data fetch {folder} --data-dir DIR` gets the data)"
        )
    return data_dir


def missing(data_dir: Path, folder: str, names: Sequence[str], task: str) -> DataError:
    """The error that says which files are missing, where they were looked for and how to get them."""
    return DataError(
        f"{task} found no {', '.join(names)} in {data_dir / folder} or {data_dir}; get the data set with `harness data "
        f"fetch {folder} --data-dir {data_dir}`, or give the folder that holds it"
    )
