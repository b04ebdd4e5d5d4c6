"""What the tasks share: seeded initial weights, digests and where data files are looked for."""

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.api import Array, DataError, Tensor


def uniform(tensor: Tensor, limit: float, seed: int) -> NDArray[np.float32]:
    """Initial weights from a uniform distribution in [-limit, limit).

    The generator depends on the seed and the tensor's name alone, so a tensor's weights stay the same when another one
    joins the model.

    Shapes:
        -> the shape of the tensor.
    """
    rng = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())])
    return rng.uniform(-limit, limit, tensor.shape).astype(np.float32)


def digest(parts: Sequence[str], arrays: Sequence[Array]) -> str:
    """SHA-256 over the parts and over type, shape and bytes of the arrays."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(f"{len(part)}:{part}".encode())
    for array in arrays:
        # Little endian whatever the machine, so that a fingerprint is the same everywhere.
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        sha.update(f"{plain.dtype.str}{plain.shape}".encode())
        sha.update(plain.tobytes())
    return sha.hexdigest()


def find_files(data_dir: Path | None, folder: str, names: Sequence[str], task: str) -> list[Path]:
    """The files of a data set, in `data_dir/folder` or in `data_dir` itself, whichever has them.

    Raises:
        DataError: there is no data folder, or a file is missing; the sentence says which and where it was looked for.
    """
    if data_dir is None:
        raise DataError(
            f"{task} needs the data set '{folder}' ({', '.join(names)}) and no data folder is given; get it with "
            f"`harness data fetch {folder} --data-dir DIR` and pass `--data-dir DIR` or set HARNESS_DATA"
        )
    places = (data_dir / folder, data_dir)
    for place in places:
        if all((place / name).is_file() for name in names):
            return [place / name for name in names]
    best = max(places, key=lambda place: sum((place / name).is_file() for name in names))
    missing = [name for name in names if not (best / name).is_file()]
    raise DataError(
        f"{task} found no {', '.join(missing)} in {places[0]} or {places[1]}; get the data set with "
        f"`harness data fetch {folder} --data-dir {data_dir}`, or name the folder that holds it"
    )
