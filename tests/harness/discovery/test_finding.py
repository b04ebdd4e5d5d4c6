"""Discovery: what is broken is a row, and never stops anything else."""

import subprocess
import sys
from importlib.metadata import EntryPoint, distributions

import pytest
from pydantic import ValidationError

from harness.api import API_VERSION, Pattern, PluginUnavailableError, UnknownPluginError
from harness.discovery.finding import discover
from harness.discovery.registry import KINDS

GOOD = '''
from typing import ClassVar
from harness.api import Frame, Pattern, hookimpl

class {name}(Pattern):
    """{name} of the tests.

    More.
    """

    name: ClassVar[str] = "{snake}"
    size: int = 4

    def frame(self, rows, cols):
        return Frame()

@hookimpl
def register_pattern():
    return {name}
'''


def good(name, snake):
    return GOOD.format(name=name, snake=snake)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install distributions made of files, and answer with their real entry points."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def installed(distribution, files, version="1.2", entries=None):
        package = distribution.replace("-", "_")
        for name, text in {"__init__.py": "", **files}.items():
            path = tmp_path / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        info = tmp_path / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = "".join(f"{name} = {value}\n" for name, value in (entries or {"patterns": package}).items())
        (info / "entry_points.txt").write_text(f"[harness.plugins]\n{lines}")
        found = distributions(path=[str(tmp_path)])
        return [entry for one in found for entry in one.entry_points if entry.group == "harness.plugins"]

    yield installed
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {path.name for path in tmp_path.iterdir()} | {
            path.stem for path in tmp_path.iterdir()
        }:
            del sys.modules[name]


def only_row(registry):
    (row,) = registry.rows
    return row


# --- what is right ----------------------------------------------------------------------------------------------------


def test_every_module_of_a_package_is_a_plugin_but_those_with_a_leading_underscore(install):
    registry = discover(
        install(
            "acme", {"tiles.py": good("Tiles", "tiles"), "_shared.py": "raise RuntimeError", "inner/__init__.py": ""}
        )
    )

    row = only_row(registry)
    assert (row.kind, row.name, row.summary) == ("pattern", "tiles", "Tiles of the tests.")
    assert (row.distribution, row.version, row.module) == ("acme", "1.2", "acme.tiles")
    assert (row.state, row.error, row.remedy) == ("ok", None, None)


def test_an_entry_point_may_name_a_single_module_or_a_package_with_hooks_of_its_own(install):
    files = {
        "tiles.py": good("Tiles", "tiles"),
        "bricks/__init__.py": good("Bricks", "bricks"),
        "bricks/model.py": "1 / 0",
    }

    registry = discover(install("acme", files, entries={"one": "acme.tiles", "two": "acme.bricks"}))

    assert registry.names("pattern") == ("bricks", "tiles")
    assert all(row.state == "ok" for row in registry.rows)


def test_a_hook_may_answer_with_several_classes(install):
    text = (
        good("Tiles", "tiles") + "    \nclass Bricks(Tiles):\n    '''Bricks.'''\n    name: ClassVar[str] = 'bricks'\n"
    )

    registry = discover(install("acme", {"both.py": text.replace("return Tiles", "return [Tiles, Bricks]")}))

    assert registry.names("pattern") == ("bricks", "tiles")


def test_a_module_of_mere_helpers_is_no_plugin(install):
    assert discover(install("acme", {"helpers.py": "def half(x):\n    return x / 2\n"})).rows == ()


def test_the_same_module_named_twice_is_one_plugin(install):
    entries = {"patterns": "acme", "again": "acme.tiles"}

    assert len(discover(install("acme", {"tiles.py": good("Tiles", "tiles")}, entries=entries)).rows) == 1


def test_what_an_earlier_name_of_a_distribution_left_behind_offers_nothing_twice(install):
    left = install("earlier-name", {}, entries={"patterns": "harness_plugins.patterns"})

    registry = discover([*left, *_installed()])

    assert [row.name for row in registry.rows if row.kind == "pattern"].count("block") == 1
    assert registry.row("pattern", "block").distribution == "sparsity-harness"
    assert not [row for row in registry.rows if row.state == "broken"]


def test_two_discoveries_share_nothing(install):
    entries = install("acme", {"tiles.py": good("Tiles", "tiles")})

    assert discover(entries).manager is not discover(entries).manager
    assert discover([]).rows == ()


# --- what is broken ---------------------------------------------------------------------------------------------------

HOOK = "from harness.api import Pattern, hookimpl\n@hookimpl\ndef register_pattern({arguments}):\n    {body}\n"
BROKEN = {
    "raises at import": ("1 / 0", "raised at import: ZeroDivisionError: division by zero", "upgrade or uninstall acme"),
    "exits at import": ("raise SystemExit(3)", "exited at import: SystemExit: 3", "upgrade or uninstall acme"),
    "misses a module": (
        "import nowhere_to_be_found",
        "No module named 'nowhere_to_be_found'",
        "install 'nowhere_to_be_found'",
    ),
    "has a syntax error": ("def (", "SyntaxError", "upgrade or uninstall acme"),
    "misspells a hook": (
        good("Tiles", "tiles").replace("register_pattern", "register_patern"),
        "unknown hook 'register_patern'",
        "did you mean 'register_pattern'?",
    ),
    "forgets the mark": (
        good("Tiles", "tiles").replace("@hookimpl", ""),
        "register_pattern is not marked",
        "@hookimpl",
    ),
    "forgets the hook": (
        good("Tiles", "tiles").partition("@hookimpl")[0],
        "Tiles is defined but no hook offers it",
        "mark",
    ),
    "asks for an argument": (
        HOOK.format(arguments="pm", body="return []"),
        "a hook does not fit its specification",
        "without arguments",
    ),
    "has a hook that raises": (
        HOOK.format(arguments="", body="1 / 0"),
        "register_pattern raised ZeroDivisionError",
        "upgrade",
    ),
    "has a hook that exits": (
        HOOK.format(arguments="", body="raise SystemExit"),
        "register_pattern raised SystemExit",
        "upgrade",
    ),
    "returns another type": (
        HOOK.format(arguments="", body="return 'tiles'"),
        "must return a subclass of Pattern or a list of them, got 'tiles'",
        "inherits from Pattern",
    ),
    "returns an instance": (
        good("Tiles", "tiles").replace("return Tiles", "return Tiles()"),
        "must return a subclass of Pattern",
        "inherits",
    ),
    "returns another kind": (
        HOOK.format(arguments="", body="from harness.api import Strategy; return Strategy"),
        "subclass of Pattern",
        "inherits",
    ),
    "is abstract": (
        HOOK.format(arguments="", body="return type('T', (Pattern,), {'name': 'tiles'})"),
        "lacks frame",
        "abstract",
    ),
    "has no name": (good("Tiles", "tiles").replace('name: ClassVar[str] = "tiles"', ""), "must set `name`", "ClassVar"),
    "has a name with spaces": (good("Tiles", "Big Tiles"), "must set `name` to lower-case letters", "ClassVar"),
    "has a field without a default": (
        good("Tiles", "tiles").replace("size: int = 4", "size: int"),
        "Tiles() failed: ValidationError",
        "a default",
    ),
    "cannot be hashed": (
        good("Tiles", "tiles").replace("size: int = 4", "size: list[int] = [4]"),
        "unhashable type: 'list'",
        "hashable",
    ),
    "is made for a newer harness": (
        good("Tiles", "tiles").replace("size: int", f"api_version: ClassVar[int] = {API_VERSION + 1}\n    size: int"),
        f"Tiles needs plugin interface {API_VERSION + 1}, this harness has {API_VERSION}",
        "upgrade harness",
    ),
}


@pytest.mark.parametrize(("text", "error", "remedy"), BROKEN.values(), ids=BROKEN)
def test_a_plugin_that_is_broken_is_a_row_beside_those_that_work(install, text, error, remedy):
    registry = discover(install("acme", {"bad.py": text, "zebra.py": good("Zebra", "zebra")}))

    broken = [row for row in registry.rows if row.state == "broken"]
    assert registry.names("pattern") == ("zebra",)
    assert len(broken) == 1
    assert error in broken[0].error
    assert remedy in broken[0].remedy
    assert "\n" not in broken[0].error
    assert (broken[0].kind, broken[0].distribution, broken[0].version) == ("pattern", "acme", "1.2")
    assert broken[0].module == "acme.bad"


def test_an_interrupt_is_no_broken_plugin(install):
    with pytest.raises(KeyboardInterrupt):
        discover(install("acme", {"bad.py": "raise KeyboardInterrupt"}))


def test_a_package_that_is_not_there_is_a_row(install):
    row = only_row(discover(install("acme", {}, entries={"patterns": "acme_elsewhere"})))

    assert (row.state, row.name, row.distribution) == ("broken", "acme_elsewhere", "acme")


def test_an_entry_point_that_names_an_object_is_a_row(install):
    entries = {"tiles": "acme.tiles:Tiles"}

    row = only_row(discover(install("acme", {"tiles.py": good("Tiles", "tiles")}, entries=entries)))

    assert row.error == "an entry point must name a package or a module, got 'acme.tiles:Tiles'"
    assert row.remedy == "write 'acme.tiles' in the entry points of acme"


def test_a_backend_without_its_framework_is_unavailable_and_may_still_be_named(install):
    text = (
        "from typing import ClassVar\nfrom harness.api import Backend, hookimpl\nclass Far(Backend):\n"
        "    name: ClassVar[str] = 'far'\n    def why_unavailable(self): {}\n    def versions(self): return {{}}\n"
        "    def open(self, problem, settings): ...\n@hookimpl\ndef register_backend(): return Far\n"
    )
    files = {"far.py": text.format("return 'Far is not installed; run `pip install far`'")}
    registry = discover(install("acme", files, entries={"backends": "acme"}))

    assert only_row(registry).state == "unavailable"
    assert only_row(registry).error == "Far is not installed; run `pip install far`"
    assert registry.create("backend", "far").label() == "far"


# --- names that clash -------------------------------------------------------------------------------------------------


def test_two_packages_with_one_name_stay_sound_and_are_told_apart_by_their_owner(install):
    install("acme", {"tiles.py": good("Tiles", "tiles")})
    registry = discover(install("zenith", {"floor.py": good("Floor", "tiles"), "roof.py": good("Roof", "roof")}))

    assert {row.state for row in registry.rows} == {"ok"}
    assert registry.names("pattern") == ("acme/tiles", "roof", "zenith/tiles")
    assert registry.get("pattern", "acme/tiles").__name__ == "Tiles"
    assert registry.create("pattern", {"name": "zenith/tiles", "size": 8}).label() == "tiles(size=8)"
    with pytest.raises(UnknownPluginError, match="offered by 2 packages; write 'acme/tiles' or 'zenith/tiles'"):
        registry.get("pattern", "tiles")


def test_built_in_names_are_reserved_whatever_comes_first(install):
    own = EntryPoint("patterns", "harness_plugins.patterns", "harness.plugins")
    (own,) = [entry for entry in _installed() if entry.value == own.value]
    theirs = install("acme", {"tiles.py": good("Tiles", "unstructured")})

    registry = discover([*theirs, own])

    assert registry.get("pattern", "unstructured").__module__.startswith("harness_plugins.")
    (broken,) = [row for row in registry.rows if row.state == "broken"]
    assert broken.distribution == "acme"
    assert "(built-in names are reserved)" in broken.error


def _installed():
    from importlib.metadata import entry_points

    return entry_points(group="harness.plugins")


def test_a_name_may_say_its_distribution(install):
    install("acme-tools", {"tiles.py": good("Tiles", "tiles")})
    registry = discover(install("zenith", {"floor.py": good("Floor", "tiles")}))

    assert registry.get("pattern", "acme-tools/tiles") is registry.get("pattern", "Acme_Tools/tiles")
    with pytest.raises(UnknownPluginError):
        registry.get("pattern", "nobody/tiles")
    assert registry.get("pattern", "zenith/tiles").__name__ == "Floor"


# --- looking up -------------------------------------------------------------------------------------------------------


def test_an_unknown_name_gets_a_suggestion_and_the_command_that_lists_all(install):
    registry = discover(install("acme", {"tiles.py": good("Tiles", "tiles")}))

    with pytest.raises(UnknownPluginError) as caught:
        registry.get("pattern", "tile")
    assert (
        str(caught.value) == "unknown pattern 'tile'; did you mean 'tiles'? `harness plugins list patterns` shows all"
    )
    with pytest.raises(UnknownPluginError):
        registry.get("strategy", "tiles")


def test_a_broken_module_is_found_under_its_own_name(install):
    registry = discover(install("acme", {"tiles.py": "1 / 0"}))

    with pytest.raises(
        PluginUnavailableError, match=r"pattern 'tiles' cannot be used: acme 1\.2, acme\.tiles: raised"
    ) as caught:
        registry.get("pattern", "tiles")
    assert caught.value.exit_code == 4
    with pytest.raises(UnknownPluginError):
        registry.get("strategy", "tiles")


def test_parameters_are_taken_strictly(install):
    registry = discover(install("acme", {"tiles.py": good("Tiles", "tiles")}))

    assert registry.create("pattern", {"name": "tiles", "size": 8, "label": "big"}).label() == "big"
    assert registry.create("pattern", {"name": "tiles", "size": 8}).label() == "tiles(size=8)"
    for size in ("8", True, 1.5, None):
        with pytest.raises(ValidationError):
            registry.create("pattern", {"name": "tiles", "size": size})


def test_rows_come_by_kind_and_name():
    rows = [(row.kind, row.name) for row in discover().rows]

    kinds = [kind for kind, _ in rows]
    assert kinds == sorted(kinds, key=list(KINDS).index)
    assert [name for kind, name in rows if kind == "pattern"] == sorted(
        name for kind, name in rows if kind == "pattern"
    )


def test_the_built_in_plugins_are_all_sound():
    registry = discover()

    assert not [row for row in registry.rows if row.distribution == "sparsity-harness" and row.state == "broken"]
    assert issubclass(registry.get("pattern", "bank_balanced"), Pattern)


def test_discovery_imports_no_framework():
    heavy = ("torch", "tensorflow", "tf_keras", "keras", "scipy", "pandas", "matplotlib")
    discovery = "from harness.discovery.finding import discover; discover()"
    code = f"import sys; {discovery}; print([name for name in {heavy} if name in sys.modules])"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "[]"
