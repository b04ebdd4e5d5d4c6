"""Settings of the documents' site, which is made of these pages and the code: `sphinx-build -W docs build/site`."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "site"))

import generated  # docs/site/generated.py

from harness import __version__

project = "sparsity-harness"
author = "The sparsity-harness developers"
copyright = author
release = version = __version__
html_title = f"sparsity-harness {__version__}"
html_theme = "furo"
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["site"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
# Reports of studies are reached by links; docstrings are written as Markdown is, and what is left of that is readable.
suppress_warnings = ["toc.not_included", "docutils"]
default_role = "code"  # docstrings are written as Markdown is: `name`

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures say them
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_rtype = False
napoleon_custom_sections = [
    ("Shapes", "notes_style"), ("Units", "notes_style"), ("Assumes", "notes_style"), ("Source", "notes_style"),
    ("Method", "notes_style"), ("Formula", "notes_style"), ("Args of the methods", "notes_style"),
]  # fmt: skip

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./)+((?!docs/)[^)#]+)(#[^)]*)?\)")


def _links(app, docname, source):
    """Files beside the documents are no part of the site: their links become their names."""
    depth = docname.count("/")

    def named(match):
        up = match[0].count("../")
        return match[0] if up <= depth else f"{match[1]} (`{match[3]}` in the repository)"

    source[0] = _OUTSIDE.sub(named, source[0])


def _plain(app, what, name, obj, options, lines):
    """Docstrings are no reStructuredText: stars and bars are what they are, fenced code is a block of code."""
    found, fence = [], None
    for line in lines:
        mark = re.match(r"(\s*)```(\w*)\s*$", line)
        if mark and fence is None:
            fence = mark[1]
            found += ["", f"{fence}.. code-block:: {mark[2] or 'text'}", ""]
        elif mark:
            fence = None
            found.append("")
        elif fence is not None:
            found.append(f"    {line}")
        else:
            code = line.lstrip().startswith((">>>", "..."))
            found.append(line if code else line.replace("*", r"\*").replace("|", r"\|"))
    lines[:] = found


def _skipped(app, what, name, obj, skip, options):
    """What pydantic adds to every model is its own documentation's."""
    return True if name.startswith("model_") else None


def setup(app):
    """Write the generated pages first, and read docstrings as they are meant."""
    generated.write(Path(__file__).parent / "reference")
    app.connect("source-read", _links)
    app.connect("autodoc-process-docstring", _plain, priority=100)
    app.connect("autodoc-skip-member", _skipped)
