"""What every test may use: golden texts, rewritten by `pytest --update-golden`, and scripts that run beforehand."""

import os
import signal
from pathlib import Path

import pytest
from beforehand import Beforehand
from hypothesis import HealthCheck, settings

CALLERS = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "COLUMNS", "LINES", "TERM", "LANG", "LC_", "PYTHON", "HARNESS_")
"""How variables begin that say what the caller's terminal, language and Python are like."""

# Before any module of a test reads them, and for every process that a test starts. Where the data lie is the one thing
# that the caller may say.
for _name in [name for name in os.environ if name.startswith(CALLERS) and name != "HARNESS_DATA"]:
    del os.environ[_name]

# A shell lets its background jobs ignore Ctrl-C, and so would every command that a test starts and interrupts.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the texts in tests/golden; review the diff")


def pytest_configure(config):
    config.beforehand = None


def pytest_collection_finish(session):
    """Begin with the long scripts of the modules that are going to be tested."""
    if session.config.option.collectonly:
        return
    session.config.beforehand = Beforehand()
    for module in dict.fromkeys(item.module for item in session.items):
        for name, arguments in getattr(module, "BEFOREHAND", {}).items():
            session.config.beforehand.start(name, arguments)


def pytest_unconfigure(config):
    if config.beforehand is not None:
        config.beforehand.close()


@pytest.fixture(scope="module")
def ran_beforehand(request):
    """What a script of this module printed, and the file that it wrote."""

    def ask(name):
        done = request.config.beforehand.wait(name, request.module.BEFOREHAND[name])
        return done, request.config.beforehand.out(name)

    return ask


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
