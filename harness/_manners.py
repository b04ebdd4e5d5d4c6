"""What a plugin does to the process that it lives in: what its import loads, and which global state it changes."""

import importlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np

from harness.api import Component, PluginUnavailableError
from harness.api.promises import demand
from harness.user_files import folder_of, import_file

FRAMEWORKS = ("torch", "tensorflow", "tf_keras", "keras", "jax", "tensorflow_model_optimization")
"""Libraries that take seconds to import, or may be missing where plugins are only listed."""

_WAIT = 600.0  # seconds; a machine may be busy
_ANSWER = "harness._manners: "  # begins the line with the answer, whatever else a module prints
_CHILD = """
import json, sys
asked = json.load(sys.stdin)
sys.path[:] = asked["path"]
from harness._manners import answer
answer(asked["module"], asked["file"])
"""


def check_import(component: type[Component]) -> None:
    """What the import of a plugin's module promises: no framework is loaded, and the process stays as it was.

    The module is imported in a fresh process, where a framework is noticed without being loaded.

    Args:
        component: a plugin's class.

    Raises:
        PluginContractError: the first promise it breaks.
        PluginUnavailableError: the class lies in no file, so that its import cannot be tried.
    """
    module = component.__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        raise PluginUnavailableError(f"{module}.{component.__qualname__} lies in no file, so that nothing imports it")
    asked = json.dumps({"module": module, "file": os.path.abspath(file), "path": sys.path}, default=str)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=asked.encode(),
            capture_output=True,
            timeout=_WAIT,
            check=False,
        )
        # A module may print anything: the answer stands in a line that says that it is one.
        lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line.startswith(_ANSWER)]
    except subprocess.TimeoutExpired:
        lines = []
    where = f"import of {module if folder_of(module) is None else file}"
    demand(lines, where, "an import that ends, got a process that ended first or had to be ended")
    found = json.loads(lines[-1].removeprefix(_ANSWER))
    loaded = ", ".join(found["loaded"])
    demand(not loaded, where, f"frameworks to be imported inside functions only, got an import of {loaded}")
    demand(not found["error"], where, f"an import that works, got {found['error']}")
    changed = " and ".join(found["changed"])
    demand(not changed, where, f"global state to be left as it was, got a change of {changed}")


def check_globals(where: str, use: Callable[[], object], watched: Sequence[str] | None = None) -> None:
    """Demand that using a plugin leaves the global state of the process as it was; what it changed is put back.

    What happens once alone, such as what a library does when it is first imported inside a function, is no fault.

    Args:
        where: whose promise it is, for the error.
        use: uses the plugin; called a second time where the first time changed something.
        watched: names among the keys of `global_state()`; all by default.

    Raises:
        PluginContractError: something changed, both times.
        Exception: whatever `use` raises.
    """
    changed: Sequence[str] = ()
    _load_matplotlib()
    # Twice: what a first use changes for good, such as a library's own set-up, is not the plugin's habit.
    for _ in range(2):
        with _put_back() as before:
            use()
            changed = [name for name in _changed(before) if watched is None or name in watched]
        if not changed:
            return
    demand(False, where, f"global state to be left as it was, got a change of {' and '.join(changed)}")


def global_state() -> Mapping[str, object]:
    """What plugins share with all others in a process, by name, to be compared."""
    return {
        "numpy.random": json.dumps(np.random.get_state(legacy=False), default=lambda array: array.tolist()),
        "random": random.getstate(),
        "numpy.seterr": tuple(sorted(np.geterr().items())),
        "warnings.filters": tuple(warnings.filters),
        "os.environ": dict(os.environ),
        "the working directory": _folder(),
        "matplotlib's backend": dict.get(_settings(), "backend"),
    }


def _folder() -> str:
    try:
        # The folder may have been removed under this process.
        return os.getcwd()
    except FileNotFoundError:  # somebody removed it
        return ""


def _load_matplotlib() -> None:
    """Have matplotlib, if it is installed, so that the backend that it has by itself is known."""
    with suppress(Exception), warnings.catch_warnings():  # one that is missing or broken has no backend to change
        warnings.simplefilter("ignore")
        importlib.import_module("matplotlib")


def _settings() -> dict[str, object]:
    """The parameters of matplotlib as they lie there: asking it for a backend would choose one."""
    return getattr(sys.modules.get("matplotlib"), "rcParams", {})


def _changed(before: Mapping[str, object]) -> list[str]:
    now = global_state()
    return [name for name, value in before.items() if now[name] != value]


@contextmanager
def _put_back() -> Iterator[Mapping[str, object]]:
    """Undo what happens inside to the global state."""
    before, numbers, python = global_state(), np.random.get_state(legacy=False), random.getstate()
    try:
        with warnings.catch_warnings(), np.errstate():
            yield before
    finally:
        np.random.set_state(numbers)
        random.setstate(python)
        # A folder that is gone cannot be gone back to.
        if before["the working directory"] not in ("", _folder()):
            os.chdir(str(before["the working directory"]))
        if _settings():
            dict.__setitem__(_settings(), "backend", before["matplotlib's backend"])
        environment = before["os.environ"]
        assert isinstance(environment, dict)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update({name: text for name, text in environment.items() if os.environ.get(name) != text})


# --- in the fresh process -------------------------------------------------------------------------------------------


class _Noticed(MetaPathFinder, Loader):
    """Offers every framework, and notes down which is loaded instead of loading it; to look for one is no fault."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # Every framework is offered, installed or not: a plugin must behave alike on all machines.
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in FRAMEWORKS else None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__.partition(".")[0]
        self.loaded += [name] if name not in self.loaded else []
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def answer(module: str, file: str) -> None:
    """Import a module and print, in a line of its own, what that did."""
    noticed, error = _Noticed(), ""
    sys.meta_path.insert(0, noticed)
    _load_matplotlib()
    before = global_state()
    with redirect_stdout(sys.stderr):  # a module may print
        try:
            _import(module, Path(file))
        except (Exception, SystemExit) as raised:
            error = f"{type(raised).__name__}: {raised}"
    print(f"\n{_ANSWER}{json.dumps({'loaded': noticed.loaded, 'error': error, 'changed': _changed(before)})}")


def _import(module: str, file: Path) -> None:
    """By name where it has one; a test module, or a script, by its file."""
    if folder_of(module) is not None:
        import_file(file)
        return
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        # That a module itself is missing is one thing, that it lacks another is an error of its import.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        spec = importlib.util.spec_from_file_location("_plugin_by_its_file", file)
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
