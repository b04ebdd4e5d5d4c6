"""Digests of code: what changes them, and what does not."""

import importlib
import shutil
import sys
from pathlib import Path

import harness_plugins
import pytest
from harness_plugins.backends.torch_backend import TorchBackend
from harness_plugins.hardware.fpga_analytic import FpgaAnalytic
from harness_plugins.patterns.bank_balanced import BankBalanced
from harness_plugins.patterns.block import Block
from harness_plugins.patterns.unstructured import Unstructured
from harness_plugins.tasks.lenet import Lenet
from harness_plugins.tasks.lstm_lm import LstmLm
from harness_plugins.tasks.own import Own
from numpy_plugins import NumpyBackend

import harness
from harness.api import Gradient, Magnitude, NumberFormat
from harness.discovery.finding import discover
from harness.planning import code_digest, code_files
from harness.planning.code_imports import imported
from harness.planning.stages import Stage, scoring_stage
from harness.user_files import import_file

CACHES = shutil.ignore_patterns("__pycache__")
HELPER = '"""Help."""\n\n\ndef width():\n    """How wide."""\n    return 4  # columns\n'
PATTERN = '''"""A pattern."""

from harness.api import Frame, Pattern

from acme_{name}._inner import helper


class Acme(Pattern):
    """Groups of some columns."""

    name = "acme"

    def frame(self, rows, cols):
        """The frame."""
        return Frame(group=(1, helper.width()))
'''


@pytest.fixture(autouse=True)
def fresh():
    code_digest.forget()
    yield
    code_digest.forget()


@pytest.fixture
def acme(tmp_path, monkeypatch, request):
    """Install a distribution of a package with a helper; answer its class and its folder."""

    def install(name="one", *, editable=False, version="0.3", top="site"):
        site, package = tmp_path / top, f"acme_{name}"
        code = (tmp_path / f"{top}-source" if editable else site) / package
        (code / "_inner").mkdir(parents=True)
        files = {
            "__init__.py": "",
            "tiles.py": PATTERN.format(name=name),
            "_inner/__init__.py": "",
            "_inner/helper.py": HELPER,
            "sizes.yaml": "width: 4\n",
        }
        for file, content in files.items():
            (code / file).write_text(content)
        info = site / f"{package}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[harness.plugins]\nacme = {package}\n")
        (info / "top_level.txt").write_text(f"{package}\n")
        listed = [f"__editable___{package}_finder.py"] if editable else [f"{package}/{file}" for file in files]
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in listed))
        for folder in (site, code.parent):
            monkeypatch.syspath_prepend(str(folder))
        module = importlib.import_module(f"{package}.tiles")
        request.addfinalizer(lambda: [sys.modules.pop(each) for each in list(sys.modules) if each.startswith(package)])
        return module.Acme, code

    return install


def digest_of(cls):
    code_digest.forget()
    return code_digest.component(cls).digest


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("editable", [False, True])
def test_an_edited_helper_of_a_third_party_changes_its_digest(acme, editable):
    cls, folder = acme(editable=editable)
    before = digest_of(cls)
    edit(folder / "_inner" / "helper.py", "return 4", "return 8")

    assert digest_of(cls) != before


HARDWARE = "from ._inner import helper\nCLOCK = 100\n\nclass Device:\n    kind, name = 'hardware', 'device'\n"


def third_party(acme, *, editable=False, **changed):
    """A package of a pattern and a hardware model that share a helper; texts of its modules may be others."""
    pattern, folder = acme(editable=editable)
    record = next(folder.parent.glob("*.dist-info/RECORD"), None)
    for name, text in ({"hardware": HARDWARE, "other": "SIZE = 1\n"} | changed).items():
        (folder / f"{name}.py").write_text(text)
        if record is not None:
            append(record, f"{folder.name}/{name}.py,,\n")
    importlib.invalidate_caches()
    return pattern, importlib.import_module(f"{folder.name}.hardware").Device, folder


@pytest.mark.parametrize("editable", [False, True])
def test_an_edited_hardware_model_of_a_package_moves_no_key_of_its_pattern(acme, editable):
    pattern, device, folder = third_party(acme, editable=editable)

    found = changed_by(lambda: edit(folder / "hardware.py", "100", "200"), pattern, device)

    assert found == ["device"]


@pytest.mark.parametrize("editable", [False, True])
def test_a_helper_that_two_plugins_of_a_package_share_moves_both(acme, editable):
    pattern, device, folder = third_party(acme, editable=editable)

    found = changed_by(lambda: edit(folder / "_inner" / "helper.py", "return 4", "return 8"), pattern, device)

    assert found == ["acme", "device"]


IMPORTS = [
    "def later():\n    from acme_one import other\n",
    "def later():\n    import acme_one.other\n",
    "class Later:\n    def use(self):\n        from .other import SIZE\n",
    "try:\n    from . import other as found\nexcept ImportError:\n    pass\n",
    "from acme_one.other import *\n",
    "from . import *\n",
]
DYNAMIC = [
    "import importlib\n",
    "from importlib import import_module as get\n",
    "def later(name):\n    return __import__(name)\n",
    "import sys\n\ndef later(name):\n    return sys.modules[name]\n",
    "def later(text):\n    exec(text)\n",
    "from .made_at_import import SIZE\n",
    "import pkgutil\n",
    "import importlib as il\n\ndef later(name):\n    return il.import_module(name)\n",
    "def later(name):\n    import builtins\n    return getattr(builtins, '__import__')(name)\n",
    "from builtins import exec as run\n",
]
PATCHES = [
    "from .tiles import Acme\n\nAcme.width = 3\n",
    "from . import tiles\n\ndef register_pattern():\n    tiles.Acme.mask = lambda *_: None\n",
    "def later():\n    from acme_one.tiles import Acme as Theirs\n    setattr(Theirs, 'width', 3)\n",
    "import acme_one.tiles\n\ndel acme_one.tiles.Acme.width\n",
]


@pytest.mark.parametrize("text", [*IMPORTS, *DYNAMIC])
@pytest.mark.parametrize("place", ["hardware", "helper"])
def test_every_way_to_import_counts_and_one_by_a_computed_name_takes_the_whole_distribution(acme, text, place):
    pattern, device, folder = third_party(acme)
    append(
        folder / ("hardware.py" if place == "hardware" else "_inner/helper.py"),
        text.replace("from .", "from ." + "." * (place == "helper")),
    )

    found = changed_by(lambda: edit(folder / "other.py", "1", "2"), pattern, device)

    assert found == (["device"] if place == "hardware" else ["acme", "device"])


@pytest.mark.parametrize("text", PATCHES)
def test_a_module_that_changes_the_classes_of_another_counts_for_all_of_the_distribution(acme, text):
    pattern, _, folder = third_party(acme, other=f"SIZE = 1\n{text}")

    assert changed_by(lambda: edit(folder / "other.py", "SIZE = 1", "SIZE = 2"), pattern) == ["acme"]


def test_a_module_that_sets_attributes_of_its_own_counts_for_itself_alone(acme):
    text = "SIZE = 1\nimport numpy\nnumpy.mine = 1\n\nclass Own:\n    def use(self):\n        self.size = 1\n\n"
    text += "Own.size = 2\n"
    pattern, _, folder = third_party(acme, other=text)

    assert changed_by(lambda: edit(folder / "other.py", "SIZE = 1", "SIZE = 2"), pattern) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from importlib.metadata import version\nimport importlib.resources\n", []),
        ("from numpy import *\n", []),
        ("", []),
    ],
)
def test_imports_of_other_distributions_take_nothing_more_of_its_own(acme, text, found):
    pattern, device, folder = third_party(acme, hardware=text + HARDWARE)

    assert changed_by(lambda: edit(folder / "other.py", "1", "2"), pattern, device) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from .other import SIZE\n", []),  # what it hands on, the pattern does not take
        ("__version__ = '1'\n\ndef hook():\n    from .other import SIZE\n", []),
        ("from . import other\nother.install()\n", ["acme"]),
    ],
)
def test_the_package_around_a_plugin_counts_where_importing_it_does_something(acme, text, found):
    pattern, _, folder = third_party(acme)
    (folder / "__init__.py").write_text(text)

    assert changed_by(lambda: edit(folder / "other.py", "1", "2"), pattern) == found


def test_what_a_package_hands_on_counts_where_it_is_taken(acme):
    pattern, device, folder = third_party(acme)
    (folder / "__init__.py").write_text("from .other import SIZE\n")
    append(folder / "hardware.py", "from acme_one import SIZE\n")

    assert changed_by(lambda: edit(folder / "other.py", "1", "2"), pattern, device) == ["device"]


@pytest.mark.parametrize("editable", [False, True])
def test_data_beside_a_third_partys_code_count_for_the_kinds_that_read_data(acme, editable):
    pattern, device, folder = third_party(acme, editable=editable)

    assert changed_by(lambda: edit(folder / "sizes.yaml", "4", "8"), pattern, device) == ["device"]


@pytest.mark.parametrize(
    "text", ["from pathlib import Path\nHERE = Path(__file__).parent\n", "from importlib.resources import files\n"]
)
def test_data_count_for_a_pattern_whose_code_looks_for_its_place(acme, text):
    pattern, _, folder = third_party(acme)
    append(folder / "_inner" / "helper.py", text)

    assert changed_by(lambda: edit(folder / "sizes.yaml", "4", "8"), pattern) == ["acme"]


def test_comments_docstrings_and_layout_change_nothing(acme):
    cls, folder = acme()
    before = digest_of(cls)
    edit(folder / "_inner" / "helper.py", HELPER, "def width( ):\n\n    # so wide\n    return (4)\n")
    edit(folder / "tiles.py", '"""Groups of some columns."""', '"""Groups."""')

    assert digest_of(cls) == before


def test_the_kind_of_a_number_counts(acme):
    cls, folder = acme()
    before = digest_of(cls)
    edit(folder / "_inner" / "helper.py", "return 4", "return 4.0")

    assert digest_of(cls) != before


def test_the_same_code_has_one_digest_wherever_and_however_it_is_installed(acme, monkeypatch):
    installed, _ = acme()
    before = digest_of(installed)
    for module in [each for each in sys.modules if each.startswith("acme_one")]:
        monkeypatch.delitem(sys.modules, module)
    editable, _ = acme(editable=True, version="0.4", top="elsewhere")

    assert digest_of(editable) == before
    found = code_digest.component(editable)
    assert (found.distribution, found.version) == ("acme-one", "0.4")


def test_a_distribution_is_named_with_its_version(acme):
    found = code_digest.component(acme()[0])

    assert (found.kind, found.name, found.distribution, found.version) == ("pattern", "acme", "acme-one", "0.3")
    assert found.place == "pattern acme"


def test_code_that_cannot_be_parsed_counts_byte_by_byte(acme):
    cls, folder = acme()
    (folder / "_inner" / "helper.py").write_text("def {{ name }}:\n")
    before = digest_of(cls)
    (folder / "_inner" / "helper.py").write_text("def {{ other }}:\n")

    assert digest_of(cls) != before


def test_a_class_inherits_the_digest_of_what_it_inherits_from(acme, plugins):
    class Wider(BankBalanced):
        name = "wider"

    before = digest_of(Wider)
    edit(plugins / "patterns" / "bank_balanced.py", "banks", "pieces")

    assert digest_of(Wider) != before


def test_code_without_a_file_is_never_recognised_again():
    cls = type("Typed", (Unstructured,), {"__module__": "a_prompt"})

    assert digest_of(cls) != digest_of(cls)


def test_a_module_of_no_distribution_is_digested_all_the_same():
    found = code_digest.component(NumpyBackend)

    assert (found.distribution, found.version) == ("", "")
    assert digest_of(NumpyBackend) == found.digest


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A copy of the plugins' source that may be edited; what is imported stays as it is."""
    copy = shutil.copytree(Path(harness_plugins.__path__[0]), tmp_path / "plugins", ignore=CACHES)
    monkeypatch.setattr(harness_plugins, "__path__", [str(copy)])
    return copy


@pytest.fixture
def core(tmp_path, monkeypatch):
    """Likewise a copy of the harness."""
    copy = shutil.copytree(Path(harness.__path__[0]), tmp_path / "harness", ignore=CACHES)
    monkeypatch.setattr(harness, "__path__", [str(copy)])
    return copy


def append(path, text):
    path.write_text(path.read_text() + text)


def changed_by(write, *classes):
    before = [digest_of(cls) for cls in classes]
    write()
    return [cls.name for cls, old in zip(classes, before, strict=True) if digest_of(cls) != old]


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("patterns/block.py", ["block"]),
        ("patterns/_shared.py", ["bank_balanced"]),
        ("tasks/_images.py", ["lenet"]),
        ("tasks/_shared.py", ["lenet", "lstm_lm"]),
        ("backends/torch_backend/optimiser.py", ["torch"]),
        ("backends/keras_tfmot/build.py", []),
        ("hardware/_design/model.py", []),
        ("hardware/_devices/devices.yaml", []),
        ("strategies/gradual.py", []),
    ],
)
def test_an_edit_of_our_plugins_reaches_what_imports_it_and_nothing_else(plugins, file, names):
    found = changed_by(
        lambda: append(plugins / file, "\nadded: 1\n"), BankBalanced, Block, Lenet, LstmLm, TorchBackend, Unstructured
    )

    assert found == names


def test_data_beside_a_task_of_ours_count(plugins):
    found = changed_by(lambda: (plugins / "tasks" / "corpora.yaml").write_text("ptb: 1\n"), LstmLm)

    assert found == ["lstm_lm"]


def test_data_beside_a_hardware_model_count_and_retrain_nothing(plugins):
    found = changed_by(
        lambda: append(plugins / "hardware" / "_devices" / "devices.yaml", "\nadded: 1\n"), FpgaAnalytic, LstmLm, Block
    )

    assert found == ["fpga_analytic"]


def test_a_name_imported_from_its_own_package_is_followed(plugins):
    (plugins / "patterns" / "_other.py").write_text("WIDTH = 4\n")
    append(plugins / "patterns" / "block.py", "\nfrom . import _other\n")

    assert changed_by(lambda: (plugins / "patterns" / "_other.py").write_text("WIDTH = 8\n"), Block) == ["block"]


def test_what_only_evaluates_in_fixed_point_is_in_the_keys_of_such_evaluations_alone(plugins):
    def digests():
        code_digest.forget()
        return digest_of(Own), code_digest.evaluation_of(Own).digest

    (trained, scored) = digests()
    append(plugins / "tasks" / "own" / "torch_layers.py", "\nMORE = 1\n")
    after = digests()
    append(plugins / "tasks" / "own" / "torch_model.py", "\nMORE = 1\n")

    assert after[0] == trained and after[1] != scored
    assert digests() == (digest_of(Own), after[1]) and digest_of(Own) != trained
    assert code_digest.evaluation_of(LstmLm) is None


def test_a_score_of_ones_own_model_in_fixed_point_has_the_code_of_its_task_in_its_key():
    end = Stage("0" * 32, None, "init", {})

    inputs = scoring_stage(end, number_format=NumberFormat(), own=Own).inputs["code"]

    assert set(inputs) == {"harness own_fixed_point", "fixed point of own"}
    assert inputs["fixed point of own"]["digest"] == code_digest.evaluation_of(Own).digest


def own_digests():
    code_digest.forget()
    return {
        "stages": code_digest.stages().digest,
        "masks": code_digest.masks().digest,
        "fixed_point": code_digest.fixed_point().digest,
        "magnitude": digest_of(Magnitude),
    }


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("masks/updates.py", "0x5C03E", "0x5C03F", {"masks"}),
        ("selection/layout.py", "quota", "share", {"masks"}),
        ("arrays.py", "ROUND_HALF_UP", "ROUND_HALF_EVEN", {"masks"}),
        ("masks/beforehand.py", "def why_skipped(", "def why_passed_over(", set()),
        ("api/backend.py", "0xBA7C4", "0xBA7C5", {"stages"}),
        ("api/network.py", "splitmix64", "a mixer", set()),
        ("api/score.py", "return np.abs(given.weights)\n", "return given.weights**2\n", {"magnitude"}),
        ("api/schedule.py", "** 3", "** 2", set()),
        ("execution/worker.py", 'session.evaluate(split)', 'session.evaluate("test")', {"stages"}),
        ("execution/worker.py", "seed=job.settings.seed,", "seed=0,", {"stages"}),
        ("execution/worker.py", "def main(", "def begin(", set()),
        ("execution/worker.py", '"test", session.operations()', '"valid", session.operations()', {"fixed_point"}),
        ("fixed_point/quantise.py", "+ 0.5), -top, top)", "+ 0.4), -top, top)", {"fixed_point"}),
        ("planning/plan.py", "def make_plan(", "def made_plan(", set()),
        ("store/stage_record.py", "STORE_FORMAT = 1", "STORE_FORMAT = 7", set()),
        ("report/rows.py", "def ", "def _", set()),
        ("cli/experiment.py", "def ", "def _", set()),
    ],
)  # fmt: skip
def test_an_edit_of_the_harness_counts_where_it_decides_results(core, file, old, new, changed):
    before = own_digests()
    edit(core / file, old, new)
    after = own_digests()

    assert {name for name in before if before[name] != after[name]} == changed


def test_scores_do_not_share_a_digest():
    assert digest_of(Gradient) != digest_of(Magnitude)


def test_what_is_listed_imports_nothing_else_that_computes():
    """Every module of the harness that listed code imports is listed, or known to decide no number."""
    harmless = {
        "harness.api", "harness.api.component", "harness.errors", "harness.api.program", "harness.api.score",
        "harness.api.task", "harness.discovery.asking", "harness.discovery.guard", "harness._text", "harness._words",
        "harness.execution", "harness.execution.machine", "harness.execution.stage_log",
        "harness.results.records", "harness.planning.stages", "harness.store",
    }  # fmt: skip
    listed = {*code_digest.STAGES, *code_digest.MASKS, *code_digest.FIXED_POINT, *code_digest.OWN_FIXED_POINT}
    found = {
        name
        for module in listed
        for name in imported(module, code_files.located(module))
        if name.startswith("harness.") and code_files.located(name) is not None
    }

    assert found - listed - harmless == set()


def test_every_installed_component_has_a_digest_of_its_own():
    rows = [row for row in discover().rows if row.component is not None]
    digests = {row.component: digest_of(row.component) for row in rows if row.kind in ("task", "backend", "pattern")}

    assert len(set(digests.values())) == len(digests)


def test_a_component_inside_a_field_counts():
    class Nested(Unstructured):
        name = "nested"
        inner: Block = Block()
        others: tuple[Magnitude, ...] = (Magnitude(),)

    assert [part.place for part in code_digest.parts(Nested())] == [
        "pattern nested",
        "pattern block",
        "score magnitude",
    ]


# --- files of the user's ----------------------------------------------------------------------------------------------

USER_FILE = "from helpers import half\nfrom . import other\n\nclass Mine:\n    kind, name = 'pattern', 'mine'\n"


def user_file(folder, **changed):
    files = {"mine": USER_FILE, "helpers": "import deeper\ndef half(x): return x / 2", "other": "A = 1"}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ({**files, "deeper": "B = 1", "unrelated": "C = 1"} | changed).items():
        (folder / f"{name}.py").write_text(text)
    code_digest.forget()
    return code_digest.component(import_file(folder / "mine.py").Mine)


@pytest.mark.parametrize("name", ["mine", "helpers", "other", "deeper"])
def test_the_code_of_a_users_file_is_its_import_closure(tmp_path, name):
    before = user_file(tmp_path)

    text = f"{USER_FILE}    more = 2\n" if name == "mine" else "half, A, B = None, 2, 2"
    assert user_file(tmp_path, **{name: text}).digest != before.digest


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine", "import importlib as il\n\ndef later(name):\n    return il.import_module(name)\n"),
        ("deeper", "from importlib import import_module as im\n"),
        ("helpers", "def half(x): return x / 2\n\ndef later(name):\n    return __import__(name)\n"),
        ("patch", "from .mine import Mine\n\nMine.kept = 2\n"),
        ("patch", "import mine\n\ndef register_pattern():\n    setattr(mine.Mine, 'kept', 2)\n"),
    ],
)
def test_where_imports_of_a_users_file_are_unknown_all_code_beside_it_counts(tmp_path, name, text):
    changed = {name: f"{USER_FILE}\n{text}" if name == "mine" else text}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "no_package.py").write_text("this is no code")
    before = user_file(tmp_path, **changed)

    assert user_file(tmp_path, unrelated="C = 2", **changed).digest != before.digest


def test_what_a_users_file_does_not_import_and_where_it_lies_are_not_its_code(tmp_path):
    before = user_file(tmp_path / "one")

    assert user_file(tmp_path / "one", unrelated="C = 2", mine=f"# a remark\n{USER_FILE}").digest == before.digest
    assert user_file(tmp_path / "two").digest == before.digest
    assert (before.distribution, before.version) == ("mine.py", "")
