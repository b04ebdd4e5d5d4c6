"""Files of a user's folder: imported as in a script, found in every process, read again once they change."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from harness.api import SpecError
from harness.user_files import PREFIX, folder_of, import_file, package_of


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.mark.parametrize(
    "line", ["import helpers", "from . import helpers", "import helpers as helpers"], ids=["script", "package", "as"]
)
def test_what_lies_beside_a_file_can_be_imported(tmp_path, line):
    folder = write(tmp_path / "my.study 100%", mine=f"{line}\nHALF = helpers.HALF", helpers="HALF = 0.5")

    assert import_file(folder / "mine.py").HALF == 0.5


def test_two_folders_with_neighbours_of_one_name_never_meet(tmp_path):
    for value in ("one", "two"):
        write(tmp_path / value, mine="from helpers import WHICH", helpers=f"WHICH = {value!r}")

    assert [import_file(tmp_path / value / "mine.py").WHICH for value in ("one", "two")] == ["one", "two"]
    assert "helpers" not in sys.modules


def test_a_package_beside_it_and_modules_of_the_library_are_imported(tmp_path):
    write(tmp_path / "kit" / "deep", __init__="", inner="VALUE = 3")
    write(tmp_path / "kit", __init__="")
    write(tmp_path, mine="import os.path\nimport kit.deep.inner\nfrom kit.deep import inner\nV = kit.deep.inner.VALUE")

    module = import_file(tmp_path / "mine.py")

    assert module.V == 3 and module.inner.VALUE == 3 and module.os.path is __import__("os").path


def test_an_import_inside_a_function_looks_beside_the_file_too(tmp_path):
    write(tmp_path, mine="def later():\n    import helpers\n    return helpers.X", helpers="X = 7")

    assert import_file(tmp_path / "mine.py").later() == 7


def test_another_process_finds_it_by_name_alone(tmp_path):
    write(tmp_path, mine="from helpers import Base\n\nclass Thing(Base):\n    pass", helpers="class Base:\n    n = 5")
    packed = pickle.dumps(import_file(tmp_path / "mine.py").Thing())

    script = f"import pickle; print(pickle.loads({packed!r}).n)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd="/", check=False)

    assert found.stdout == "5\n", found.stderr


def test_an_edit_of_a_file_or_of_its_neighbour_is_seen(tmp_path):
    write(tmp_path, mine="from helpers import X\nY = 1", helpers="X = 1")
    before = import_file(tmp_path / "mine.py")
    assert import_file(tmp_path / "mine.py") is before

    write(tmp_path, helpers="X = 2")
    assert import_file(tmp_path / "mine.py").X == 2
    write(tmp_path, mine="from helpers import X\nY = 2")
    assert import_file(tmp_path / "mine.py").Y == 2


@pytest.mark.parametrize(
    ("name", "said"), [("gone.py", "which is not there"), ("notes.txt", "a Python file"), ("a.b.py", "one dot")]
)
def test_what_is_no_file_of_python_is_told(tmp_path, name, said):
    with pytest.raises(SpecError, match=said):
        import_file(tmp_path / name)


def test_a_folder_is_told_by_the_name_of_its_modules(tmp_path):
    folder = tmp_path / "a.b%2E"

    assert folder_of(f"{package_of(folder)}.mine") == folder
    assert folder_of("harness.api") is None and folder_of(PREFIX.rstrip(".")) is None
