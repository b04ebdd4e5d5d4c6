"""What every test may use: golden texts, rewritten by `pytest --update-golden`."""

from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the texts in tests/golden; review the diff")


@pytest.fixture
def golden(request):
    """Compare a text with tests/golden/<name>.txt."""

    def compare(name, text):
        path = GOLDEN / f"{name}.txt"
        text = text.rstrip("\n") + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"there is no {path.name} yet; run `pytest --update-golden` and review it"
        assert text == path.read_text(encoding="utf-8")

    return compare
