"""Hostile inputs and places, a choice of them: every one is answered in a sentence, and in time."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="the cases are made with what Linux has")
def test_a_choice_of_hostile_cases_is_answered():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hostile", "--short"],
        cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    answered = {line.split()[0]: line.split()[1:3] for line in done.stdout.splitlines()[1:]}
    assert len(answered) == 8 and all(cases == answers != "0" for cases, answers in answered.values())
