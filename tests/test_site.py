"""The pages of the site that the code writes have every plugin, every command and every name of the interface."""

import importlib.util
from pathlib import Path

import harness.api
from harness.discovery.finding import discover

SITE = Path(__file__).parents[1] / "docs" / "site" / "generated.py"


def test_every_plugin_command_and_field_is_on_its_page(tmp_path):
    spec = importlib.util.spec_from_file_location("generated_pages", SITE)
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)

    pages.write(tmp_path / "reference")
    written = {path.name: path.read_text() for path in (tmp_path / "reference").glob("*.md")}

    rows = [row for row in discover().rows if row.distribution == "sparsity-harness"]
    assert {row.kind for row in rows} <= set(pages.KINDS)
    assert [row.name for row in rows if f"\n## {row.name}\n" not in written[f"{row.kind}.md"]] == []
    for command in ("run", "report", "figures", "plugins new", "hardware cost", "schema"):
        assert f"\n## harness {command}\n" in written["commands.md"]
    assert "| `matrix` |" in written["experiment.md"] and "automodule:: harness.api" in written["api.md"]
    assert all(f"\n{name.removesuffix('.md')}\n" in written["index.md"] for name in written if name != "index.md")
    assert "<svg" in (tmp_path / "reference" / "patterns.svg").read_text()


def test_everything_of_the_interface_has_a_docstring():
    public = [getattr(harness.api, name) for name in harness.api.__all__]

    assert [each.__name__ for each in public if callable(each) and isinstance(each, type) and not each.__doc__] == []
