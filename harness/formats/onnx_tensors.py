"""Tensors of an ONNX model as arrays: dense, sparse, in the file or beside it."""

import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from harness.api.files import open_plain
from harness.arrays import Array
from harness.errors import DataError
from harness.formats.weight_arrays import BYTES_EACH, check_size

_MOST_RANK = 16


class Tensors:
    """Reads the tensors of one model.

    Args:
        onnx: the package.
        path: the model.
        most: elements that an array may have.
    """

    def __init__(self, onnx: ModuleType, path: Path, most: int) -> None:
        """Remember what all tensors of a model share."""
        self.onnx, self.path, self.most = onnx, path, most
        self._no_numbers = {onnx.TensorProto.STRING, onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128}

    def array(self, tensor: Any) -> Array | None:
        """A tensor as NumPy holds it; types that NumPy has no name for come as float32, texts as nothing.

        Raises:
            DataError: it is too large, damaged, or lies outside the folder of the model.
        """
        name, shape = str(tensor.name), tuple(tensor.dims)
        check_size(self.path, name, shape, self.most)
        # No weights have so many axes, and NumPy refuses more at 32 or 64 by its version.
        if tensor.data_type in self._no_numbers or len(shape) > _MOST_RANK:
            return None
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            tensor = self._loaded(tensor)
        try:
            array: Array = self.onnx.numpy_helper.to_array(tensor)
            return array if array.dtype.kind in "biuf" else array.astype(np.float32)
        except (ValueError, TypeError, KeyError, OverflowError, NotImplementedError) as error:
            raise DataError(
                f"{self.path}: expected the numbers of {name!r}, got damaged ones ({error}); export it again"
            ) from None

    def dense(self, sparse: Any) -> Array:
        """A sparse tensor written out.

        Raises:
            DataError: its indices do not fit its shape.
        """
        name, shape = str(sparse.values.name), tuple(sparse.dims)
        check_size(self.path, name, shape, self.most)
        values, indices = self.array(sparse.values), self.array(sparse.indices)
        if values is None or indices is None or values.ndim != 1 or indices.dtype.kind not in "iu":
            raise DataError(f"{self.path}: expected values and indices of {name!r}, got others; export it again")
        places = indices.astype(np.int64)
        # Coordinates are turned into places; one outside becomes -1, which the check below refuses.
        if indices.ndim == 2 and indices.shape == (len(values), len(shape)):  # coordinates
            inside = (places >= 0) & (places < np.array(shape))
            places = np.ravel_multi_index(tuple(places.T), shape) if inside.all() else np.array([-1])
        size = math.prod(shape)
        if places.shape != values.shape or not ((places >= 0) & (places < size)).all():
            raise DataError(
                f"{self.path}: expected the places of {len(values)} numbers of {name!r} within {shape}, got others; "
                "export it again"
            )
        array = np.zeros(size, dtype=values.dtype)
        array[places] = values
        return array.reshape(shape)

    def _loaded(self, tensor: Any) -> Any:
        """A tensor with the bytes that lie in a file beside the model."""
        found = {entry.key: entry.value for entry in tensor.external_data}
        location, name = found.get("location", ""), str(tensor.name)
        folder = self.path.parent.resolve()
        place = (folder / location).resolve() if location and "\0" not in location else folder
        # A model from a stranger must not read files elsewhere, through `..`, an absolute path or a link.
        if not place.is_relative_to(folder) or place == folder:
            raise DataError(
                f"{self.path}: expected the weights of {name!r} in the folder of the model, got them in another one "
                f"({location!r:.80}); put them beside the model, or save it without external data"
            )
        most = self.most * BYTES_EACH
        with open_plain(place, f"the weights of {self.path.name}", most=most, error=DataError) as stream:
            size = os.fstat(stream.fileno()).st_size
            try:
                offset = int(found.get("offset") or 0)
                # Without a length, all that follows the offset is meant.
                length = int(found.get("length") or size - offset)
            except ValueError:
                offset, length = -1, -1
            if offset < 0 or length < 0 or offset + length > size:
                raise DataError(
                    f"{self.path}: expected the weights of {name!r} within the {size} bytes of {place.name}, got "
                    f"offset {found.get('offset')!r:.30} and length {found.get('length')!r:.30}; get the file again"
                )
            stream.seek(offset)
            loaded = self.onnx.TensorProto()
            loaded.CopyFrom(tensor)
            loaded.ClearField("external_data")
            loaded.data_location = self.onnx.TensorProto.DEFAULT
            loaded.raw_data = stream.read(length)
            return loaded
