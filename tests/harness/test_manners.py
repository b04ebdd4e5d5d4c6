"""What a plugin does to its process is noticed: frameworks at import, and global state that it changes."""

import importlib.util
import json
import os
import random
import sys
import warnings
from types import ModuleType, SimpleNamespace
from typing import ClassVar, get_args

import numpy as np
import pytest
from harness_plugins.hardware.engines.dense_mvm import DenseMvm
from harness_plugins.hardware.fpga_analytic import FpgaAnalytic
from harness_plugins.patterns.unstructured import Unstructured
from harness_plugins.schedules.linear import LinearSchedule
from harness_plugins.scores.wanda import WandaScore
from harness_plugins.strategies.one_shot import OneShot
from harness_plugins.tasks.lstm_lm import LstmLm
from typer.testing import CliRunner

from harness import testing
from harness.api import DataError, Frame, Kind, Pattern, PluginContractError, PluginUnavailableError, Task
from harness.cli import app

pytestmark = pytest.mark.usefixtures("elsewhere")
MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder that no fault goes to, and no backend that was chosen from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MPLBACKEND", raising=False)


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A class of a module with some text, that this process has never imported."""

    def plant(text):
        module = ModuleType("planted_module")
        module.__file__ = str(tmp_path / "planted_module.py")
        (tmp_path / "planted_module.py").write_text(text)
        monkeypatch.setitem(sys.modules, "planted_module", module)
        return SimpleNamespace(__module__="planted_module", __qualname__="Planted")

    return plant


@pytest.mark.parametrize(
    ("text", "loaded"),
    [
        ("import torch.nn\nimport tensorflow\n", "torch"),
        ("try:\n    import tensorflow as tf\nexcept ImportError:\n    tf = None\nfrom keras import layers\n", "keras"),
    ],
    ids=["plain", "guarded"],
)
def test_a_framework_at_import_is_noticed(planted, text, loaded):
    with pytest.raises(PluginContractError, match=f"inside functions only, got an import of .*{loaded}"):
        testing.check_import(planted(text))


def test_every_change_of_global_state_at_import_is_noticed(planted):
    text = (
        "import os, random, warnings\nimport numpy as np\nrandom.seed(1)\nnp.random.seed(1)\nnp.seterr(all='ignore')\n"
        "warnings.filterwarnings('ignore', message='planted')\nos.environ['PLANTED'] = '1'\nos.chdir('/')\n"
    )
    backend = "import matplotlib\nmatplotlib.use('ps')\n" if MATPLOTLIB else ""
    expected = {name for name in testing.global_state() if MATPLOTLIB or "matplotlib" not in name}

    with pytest.raises(PluginContractError, match="global state to be left as it was") as caught:
        testing.check_import(planted(text + backend))

    assert {name for name in testing.global_state() if name in str(caught.value)} == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import gone_for_ever\n", "an import that works, got ModuleNotFoundError: No module named 'gone_for_ever'"),
        ("raise SystemExit(3)\n", "an import that works, got SystemExit: 3"),
        ("import os\nos._exit(0)\n", "an import that ends"),
    ],
    ids=["missing", "exits", "ends"],
)
def test_an_import_that_does_not_work_is_told(planted, text, said):
    with pytest.raises(PluginContractError, match=said):
        testing.check_import(planted(text))


def test_looking_for_a_framework_printing_and_importing_it_later_are_no_faults(planted):
    plot = "import matplotlib.pyplot\n" if MATPLOTLIB else ""
    testing.check_import(
        planted(
            "import importlib.util, os\nTHERE = importlib.util.find_spec('torch') is not None\nprint('here')\n"
            f"os.system('echo there')\n{plot}def later():\n    import torch\n    return torch\n"
        )
    )


def test_a_class_of_no_file_cannot_be_tried():
    with pytest.raises(PluginUnavailableError, match="lies in no file"):
        testing.check_import(SimpleNamespace(__module__="nowhere", __qualname__="Mine"))


class Meddles(Pattern):
    """Unstructured, and something else by the way."""

    name: ClassVar[str] = "meddles"
    way: str = "seed"

    def frame(self, rows, cols):
        WAYS[self.way]()
        return Frame()


def choose_a_backend():
    import matplotlib as mpl

    mpl.use("ps")


WAYS = {
    "numpy.random": lambda: np.random.rand(3),
    "random": random.random,
    "numpy.seterr": lambda: np.seterr(all="ignore"),
    "warnings.filters": lambda: warnings.filterwarnings("ignore", message="planted"),
    "os.environ": lambda: os.environ.update(PLANTED="1"),
    "the working directory": lambda: os.chdir("/"),
    "matplotlib's backend": choose_a_backend,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_change_of_global_state_in_use_is_noticed_and_undone(way):
    if way.startswith("matplotlib"):
        pytest.importorskip("matplotlib")
    testing.check_globals("nothing", lambda: None)  # what has to be loaded to be watched is loaded
    before = testing.global_state()

    with pytest.raises(PluginContractError, match=f"global state to be left as it was, got a change of .*{way}"):
        made(testing.PatternChecks, Meddles(way=way), shapes=[(4, 4)]).test_it_keeps_the_contract_of_its_kind()

    after = testing.global_state()
    assert {name for name in before if before[name] != after[name]} == set()


def test_what_happens_once_is_no_fault():
    first = iter([True])

    testing.check_globals("mine", lambda: next(first, False) and warnings.filterwarnings("ignore", message="once"))


def made(checks, plugin, **more):
    """A class of the author's, with the plugin that it tests."""
    return type("TestMine", (checks,), {"plugin": plugin, **more})()


@pytest.mark.parametrize(
    ("checks", "plugin"),
    [
        (testing.PatternChecks, Unstructured()),
        (testing.StrategyChecks, OneShot()),
        (testing.ScoreChecks, WandaScore()),
        (testing.ScheduleChecks, LinearSchedule()),
        (testing.EngineChecks, DenseMvm()),
        (testing.HardwareChecks, FpgaAnalytic(engine=DenseMvm())),
        (testing.TaskChecks, LstmLm(corpus="synthetic")),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_sound_plugin_passes_its_class(checks, plugin):
    tested = made(checks, plugin)

    tested.test_it_is_a_component()
    tested.test_it_keeps_the_contract_of_its_kind()


def test_a_sound_plugin_has_a_light_import():
    made(testing.PatternChecks, Unstructured()).test_its_import_is_light_and_changes_nothing()


def test_there_is_a_class_for_every_kind_with_a_contract():
    assert {checks.__name__ for checks in testing.CHECKS} < set(testing.__all__)
    assert sorted(checks.base.kind for checks in testing.CHECKS) == sorted(get_args(Kind))


@pytest.mark.parametrize("plugin", [Unstructured, OneShot(), None])
def test_a_class_without_a_plugin_of_its_kind_fails_with_the_way_out(plugin):
    with pytest.raises(
        PluginContractError, match=r"`plugin` to be an instance of Pattern, such as `plugin = Mine\(\)`"
    ):
        made(testing.PatternChecks, plugin).test_it_is_a_component()


def test_a_class_of_no_kind_tries_nothing_and_fails():
    with pytest.raises(PluginContractError, match="a class of the plugin's kind to be inherited"):
        made(testing.ComponentChecks, OneShot()).test_it_keeps_the_contract_of_its_kind()


class NoData(Task):
    """A task whose data are not here."""

    name: ClassVar[str] = "no_data"

    def load(self, data_dir):
        raise DataError("no_data: expected a file, got none")


def test_a_task_that_could_not_be_tried_fails_its_class():
    with pytest.raises(DataError, match="expected a file"):
        made(testing.TaskChecks, NoData()).test_it_keeps_the_contract_of_its_kind()


def test_a_plugin_of_which_nothing_could_be_tried_fails_its_check(tmp_path):
    (tmp_path / "no_data.py").write_text(
        "from typing import ClassVar\n\nfrom harness.api import DataError, Task, hookimpl\n\n\n"
        'class NoData(Task):\n    """A task whose data are not here."""\n\n    name: ClassVar[str] = "no_data"\n\n'
        '    def load(self, data_dir):\n        raise DataError("no_data: expected a file, got none")\n\n\n'
        "@hookimpl\ndef register_task():\n    return NoData\n"
    )

    checked = CliRunner().invoke(app, ["plugins", "check", str(tmp_path / "no_data.py"), "--json"])

    assert checked.exit_code == 6, checked.output
    *others, last = json.loads(checked.stdout)
    assert {verdict["result"] for verdict in others} == {"ok"}
    assert (last["check"], last["result"]) == ("task", "failed")
    assert last["said"] == "every check of its kind was skipped: no_data: expected a file, got none"
