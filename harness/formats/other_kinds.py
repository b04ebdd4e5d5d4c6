"""Files that are not what their name says, or are not read: told by their first bytes, with the way to one that is.

What people have in hand is rarely damaged: it is the pointer of a large file that was not fetched, a web page that was
downloaded in its place, a pickle under another name, or an archive that nobody unpacked.
"""

from pathlib import Path

from harness.api.files import open_plain
from harness.errors import DataError, HarnessError, SpecError

_TORCH = "`safetensors.torch.save_file(model.state_dict(), 'model.safetensors')` writes one"
_KERAS = "`numpy.savez('model.npz', **{getattr(v, 'path', v.name): v.numpy() for v in model.variables})` writes one"
_SOURCE = "name the checkpoint that it was made from"
_UNPACK = "unpack it"

_ARRAYS = "`numpy.save('model.npy', numpy.loadtxt(FILE, delimiter=','))` writes one"
_MATLAB = "`numpy.savez('model.npz', **{k: v for k, v in scipy.io.loadmat(FILE).items() if k[0] != '_'})` writes one"

_WAYS = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt", ".pkl", ".bin.index.json"), _TORCH),
    **dict.fromkeys((".h5", ".hdf5", ".keras", ".pb"), _KERAS),
    **dict.fromkeys((".gguf", ".tflite", ".engine"), _SOURCE),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz"), _UNPACK),
    **dict.fromkeys((".csv", ".txt"), _ARRAYS),
    ".mat": _MATLAB,
    ".json": "call it .yaml if it describes layers",
}
"""From files that are not read to ones that are, by the end of their names."""

_HEAD = 512

# (where they stand, the bytes, what such a file is, the way out, ends of names that such a file may have)
_SIGNS: tuple[tuple[int, bytes, str, str, tuple[str, ...]], ...] = (
    (0, b"version https://git-lfs", "the pointer of a file that Git LFS keeps", "`git lfs pull` fetches the file", ()),
    (0, b"<!doctype html", "a web page", "download the file itself", ()),
    (0, b"<html", "a web page", "download the file itself", ()),
    (0, b"GGUF", "GGUF", _SOURCE, ()),
    (4, b"TFL3", "a model of TensorFlow Lite", _SOURCE, ()),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5", _KERAS, ()),
    (0, b"\x80\x02", "a pickle, which is never read", _TORCH, ()),
    (0, b"\x80\x03", "a pickle, which is never read", _TORCH, ()),
    (0, b"\x80\x04\x95", "a pickle, which is never read", _TORCH, ()),
    (0, b"\x80\x05\x95", "a pickle, which is never read", _TORCH, ()),
    (0, b"\x1f\x8b", "a packed file (gzip)", _UNPACK, ()),
    (0, b"BZh", "a packed file (bzip2)", _UNPACK, ()),
    (0, b"\xfd7zXZ\x00", "a packed file (xz)", _UNPACK, ()),
    (0, b"\x28\xb5\x2f\xfd", "a packed file (zstd)", _UNPACK, ()),
    (257, b"ustar", "a packed folder (tar)", _UNPACK, ()),
    (0, b"MATLAB 5.0", "a file of MATLAB", _MATLAB, ()),
    (0, b"\x93NUMPY", "an array of NumPy", "call it .npy", (".npy",)),
    (0, b"PK\x03\x04", "an archive, as NumPy (.npz), torch.save (.pt) and Keras (.keras) write", "", (".npz",)),
    (0, b"%%matrixmarket", "a Matrix Market file", "call it .mtx", (".mtx",)),
    # The length of a header of less than 16 MB, and its first brace.
    (3, b"\x00\x00\x00\x00\x00{", "safetensors", "call it .safetensors", (".safetensors",)),
)
_MEMBERS = (
    (b"/data.pkl", "a model of torch.save", _TORCH),
    (b"metadata.json", "a model of Keras (.keras)", _KERAS),
)
"""How the first members of archives are called that are not NumPy's."""
_ARCHIVE = f"call it .npz if it is NumPy's; of a model of PyTorch {_TORCH}"


def check_kind(path: Path) -> None:
    """Pass if a file does not begin as one of another kind than its name says.

    Raises:
        SpecError: it is missing, or no plain file.
        DataError: it is of another kind; the sentence says which, and the way to one that is read.
    """
    with open_plain(path, "a file of masks or weights", most=1 << 62) as file:
        found = _sign(file.read(_HEAD), path.name.lower())
    if found is not None:
        what, way = found
        raise DataError(f"{path}: expected {path.suffix.lower()}, got {what}; {way}")


def refuse(path: Path, read: tuple[str, ...]) -> None:
    """Refuse a file that no reader takes by its name.

    Args:
        path: the file or folder.
        read: how the names of files end that are read.

    Raises:
        SpecError: always; with the way to a file that is read.
    """
    name = path.name.lower()
    way = next((way for end, way in _WAYS.items() if name.endswith(end)), "convert or rename it")
    got = repr(path.name or str(path))  # `.` has no name
    if path.is_dir():
        got, way = f"{got}, a folder", _in_folder(path, read)
    elif way == "convert or rename it":
        try:
            with open_plain(path, "", most=1 << 62) as file:
                found = _sign(file.read(_HEAD), "")
        except HarnessError:  # it is not there, either
            found = None
        if found is not None:
            got, way = f"{got}, {found[0]}", found[1]
    raise SpecError(f"expected a file that ends in {', '.join(read)}, got {got}; {way}")


def _sign(head: bytes, name: str) -> tuple[str, str] | None:
    """What a file is that begins so, and the way out; None if nothing is known against its name."""
    if head.startswith(b"PK\x03\x04"):
        # An archive begins with its first member, whose name tells who wrote it.
        member = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        for end, what, way in _MEMBERS:
            if member.endswith(end):
                return what, way
    for place, sign, what, way, ends in _SIGNS:
        # Of letters that may be large or small; other signs hold none that differ.
        there = head[place : place + len(sign)]
        if (there == sign or there.lower() == sign) and not name.endswith(ends or ("\0",)):
            return what, way or _ARCHIVE
    return None


def _in_folder(folder: Path, read: tuple[str, ...]) -> str:
    """The way from a folder to a file: those in it that are read; a model of TensorFlow is one that is not."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return "name a file"
    # A list of parts stands for them.
    fitting = [name for name in names if name.lower().endswith(read)]
    fitting = [name for name in fitting if name.lower().endswith(".index.json")] or fitting
    if fitting:
        return f"name a file in it, such as {Path(folder.name) / fitting[0]}"
    if "saved_model.pb" in names:
        return f"it is a SavedModel: {_KERAS}"
    ways = (way for name in names for end, way in _WAYS.items() if name.lower().endswith(end))
    return next(ways, "name a file of masks or weights")
