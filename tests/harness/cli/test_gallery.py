"""`plugins gallery`: every pattern's mask on one matrix, as a picture or a page."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from harness_plugins.patterns.n_m import NM
from typer.testing import CliRunner

from harness.api import Frame, Pattern, PluginUnavailableError
from harness.cli import app, gallery
from harness.discovery.finding import discover

SVG = "{http://www.w3.org/2000/svg}"


def drawn(path, *options):
    return CliRunner().invoke(app, ["plugins", "gallery", "-o", str(path), *options])


def test_every_pattern_is_drawn_with_the_weights_that_it_keeps(tmp_path):
    assert drawn(tmp_path / "all.svg").exit_code == 0

    root = ET.parse(tmp_path / "all.svg").getroot()
    titles = [text.text for text in root.iter(f"{SVG}text")]
    assert {title.partition(":")[0] for title in titles} == set(discover().names("pattern"))
    squares = {
        title.partition(":")[0]: sum(int(width) for width in re.findall(r"h(\d+)", group.find(f"{SVG}path").get("d")))
        for title, group in zip(titles, root.iter(f"{SVG}g"), strict=True)
    }
    assert squares["unstructured"] == 32 * 40 // 4 * 7  # a quarter of the matrix, in units of seven pixels
    assert squares["n_m"] == 32 * 40 // 2 * 7


def test_the_page_has_a_section_with_words_and_a_picture_for_each(tmp_path):
    assert drawn(tmp_path / "all.html").exit_code == 0

    text = (tmp_path / "all.html").read_text(encoding="utf-8")
    assert text.count("<section>") == text.count("<svg") == len(discover().names("pattern"))
    assert "Cao et al., &quot;Efficient and Effective Sparse LSTM" in text


def test_equal_patterns_give_equal_bytes(tmp_path):
    for name in ("one.svg", "two.svg"):
        drawn(tmp_path / name)

    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_png_is_written_by_matplotlib_and_its_lack_is_told(tmp_path, monkeypatch):
    assert drawn(tmp_path / "all.png").exit_code == 0
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(gallery, "find_spec", lambda name: None)
    done = drawn(tmp_path / "other.png")
    assert done.exit_code == PluginUnavailableError.exit_code
    assert "a PNG needs matplotlib" in done.stderr
    assert not (tmp_path / "other.png").exists()


def test_another_suffix_is_refused(tmp_path):
    done = drawn(tmp_path / "all.gif")

    assert done.exit_code == 2
    assert "expects a file ending in .svg, .png, .html" in " ".join(done.stderr.split())


def test_a_pattern_that_does_not_take_the_matrix_says_why():
    class Wide(Pattern):
        """Groups of 64."""

        name = "wide"

        def frame(self, rows, cols):
            return Frame(group=(1, 64))

    piece = gallery._piece(Wide())

    assert piece.mask is None
    assert "64" in piece.reason
    assert gallery._piece(NM()).mask.mean() == 0.5


@pytest.mark.parametrize("name", ["hidden_unit", "two_ratio"])
def test_what_looks_at_several_tensors_shows_the_recurrent_one_beside(name):
    mask = gallery._piece(discover().get("pattern", name)()).mask

    assert mask.shape == (32, 40 + 1 + 8)
    assert not mask[:, 40].any() and np.any(mask[:, 41:])
