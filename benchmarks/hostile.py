"""Inputs and places that nobody means well with: no hang, no traceback, no half file, one sentence each.

Run: `python -m benchmarks.hostile [--short] [KIND ...]`. Every case is a command in a folder of its own, in a process
that is forked from one which has imported the command line. It passes if the command ends in time, with an exit code
that its kind allows, prints no traceback and no more than a page, and leaves no file that it should not. Prints, for
every kind, the cases, how many were answered, and the seconds of the slowest; exits 1 if one was not. `--short` is a
choice of them for the tests.
"""

import argparse
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "tests" / "support"

HANG_S = 120.0
"""A command that has not ended by then hangs."""

PAGE = 40_000
"""Characters that a command may print on stderr."""

SPEC = """
name: toy
task: toy
scope: [softmax]
tolerance: 0.05
matrix:
  backend: [numpy]
  pattern: [unstructured]
  strategy: [{name: fine_tuning, epochs: 1}]
  sparsity: [0.5]
"""


def _nothing(folder: Path) -> None:
    """No preparation, no check."""


@dataclass(frozen=True)
class Case:
    """One command under a hostile condition.

    Args:
        kind: the kind it belongs to; name: what is hostile.
        arguments: of the command line.
        codes: exit codes that are answers.
        prepare: makes the folder hostile; check: raises AssertionError if something is wrong afterwards.
        environment: variables that differ.
        limits: of the process, by `resource` constant.
        stdout, stderr: device in place of a file; "closed" for none.
        is_fresh: in a new interpreter, where the environment decides how it starts.
        is_short: among those of the tests.
        most_s: seconds within which it has to answer on an idle machine; told if it did not.
    """

    kind: str
    name: str
    arguments: tuple[str, ...]
    codes: tuple[int, ...] = (2,)
    prepare: Callable[[Path], object] = _nothing
    check: Callable[[Path], object] = _nothing
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[int, int] = field(default_factory=dict)
    stdout: str = ""
    stderr: str = ""
    is_fresh: bool = False
    is_short: bool = False


@dataclass(frozen=True)
class Answer:
    """What became of a case: `fault` is empty where it was answered."""

    case: Case
    fault: str
    seconds: float


# --- running ----------------------------------------------------------------------------------------------------


class Ground:
    """Where cases run: a folder with a finished store, copied for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sound = folder / "sound"
        self._sound.mkdir()
        (self._sound / "experiment.yaml").write_text(SPEC)
        self._places = iter(range(10**9))

    def prepare(self) -> None:
        """Run the experiment once.

        Raises:
            RuntimeError: it cannot even be run.
        """
        first = Case("", "sound", ("run", "experiment.yaml", "--store", "store", "--workers", "1"), (0,))
        fault = self._run(first, self._sound)
        if fault:
            raise RuntimeError(f"the sound experiment: {fault}")

    def answer(self, case: Case) -> Answer:
        """Run a case."""
        place = self._folder / f"case{next(self._places)}"
        shutil.copytree(self._sound, place, symlinks=True)
        case.prepare(place)
        start = time.monotonic()
        try:
            fault = self._run(case, place)
            seconds = time.monotonic() - start
            if not fault:
                try:
                    case.check(place)
                except AssertionError as error:
                    fault = f"left {error}"
            left = [str(path.relative_to(place)) for path in _files(place) if _is_part(path)]
            if not fault and left:
                fault = f"left {', '.join(left[:5])}"
        finally:
            _remove(place)
        return Answer(case, fault, seconds)

    def _run(self, case: Case, place: Path) -> str:
        """Run a case's command; what is wrong with how it ended, or nothing."""
        out, err = self._folder / "stdout", self._folder / "stderr"
        process = _begin(case, place, out, err)
        until = time.monotonic() + HANG_S
        status: int | None = None
        while status is None and time.monotonic() < until:
            pid, found = os.waitpid(process, os.WNOHANG)
            if pid:
                status = os.waitstatus_to_exitcode(found)
            else:
                time.sleep(0.005)
        if status is None:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return "no answer"
        said = err.read_text(errors="replace") if err.exists() else ""
        if "Traceback" in said or "this is a bug" in said:
            return f"a traceback: {said[-600:]}"
        if status not in case.codes:
            return f"exit code {status}, expected {case.codes}: {said[-400:]}"
        if len(said) > PAGE:
            return f"{len(said):,} characters on stderr"
        return ""


def _begin(case: Case, place: Path, out: Path, err: Path) -> int:
    for path in (out, err):
        path.unlink(missing_ok=True)
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        _become(case, place, out, err)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        with suppress(OSError, ValueError):
            traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)


def _become(case: Case, place: Path, out: Path, err: Path) -> None:
    """Turn this process into a case's command."""
    os.setsid()
    os.chdir(place)
    sys.dont_write_bytecode = True  # Python itself leaves half of such a file where there is no room
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    for number, file, other in ((1, out, case.stdout), (2, err, case.stderr)):
        if other == "closed":
            os.close(number)
            continue
        handle = os.open(other or file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    os.environ.update(case.environment)
    for limit, most in case.limits.items():
        resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))
    runs = place.parent / "sound" / "store" / "runs"
    names = sorted(path.name for path in runs.iterdir()) if runs.is_dir() else [""]
    arguments = [names[0] if part == RUN_ID else part for part in case.arguments]
    if case.arguments[:1] and case.arguments[0] in ("run", "plan", "validate", "why"):
        arguments += ["--plugin", str(SUPPORT / "hostile_plugins.py")]
    if case.is_fresh:
        os.execv(sys.executable, [sys.executable, "-m", "harness", *map(os.fsencode, arguments)])  # type: ignore[list-item]
    streams = [None if name == "closed" else open(number, "w", closefd=False) for number, name in
               ((1, case.stdout), (2, case.stderr))]  # fmt: skip
    sys.stdout, sys.stderr = streams  # type: ignore[assignment]
    sys.argv = ["harness", *arguments]
    from harness.__main__ import main

    main()


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root) / name for name in names)


def _is_part(path: Path) -> bool:
    """Whether a file is on its way to a name."""
    return (
        path.name.startswith(".")
        and (path.name.endswith(".harness-part") or path.suffix[1:].isalnum())
        and ("tmp" in path.parts or len(path.suffix) == 9 or path.name.endswith(".harness-part"))
    )


def _remove(folder: Path) -> None:
    for root, names, _ in os.walk(folder):
        for name in names:
            with suppress(OSError):
                os.chmod(Path(root) / name, 0o755)
    shutil.rmtree(folder, ignore_errors=True)


# --- the cases --------------------------------------------------------------------------------------------------

RUN = ("run", "experiment.yaml", "--store", "store", "--workers", "1", "--progress", "none")


def spec(**changes: str) -> Callable[[Path], object]:
    """A preparation that changes lines of the experiment by their key."""

    def prepare(folder: Path) -> None:
        lines = SPEC.splitlines()
        for key, value in changes.items():
            place = next((n for n, line in enumerate(lines) if line.strip().startswith(f"{key}:")), None)
            if place is None:
                lines.append(f"{key}: {value}")
            else:
                indent = len(lines[place]) - len(lines[place].lstrip())
                lines[place] = f"{' ' * indent}{key}: {value}"
        (folder / "experiment.yaml").write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")

    return prepare


WORD = "x" * 5_000_000
ODD = "a\x1b[31m\x00\r\nb\ud800[bold red]\u202e"


def texts() -> Iterator[Case]:
    """Words of users that are too long, or hold what no terminal should get."""
    named = {
        "a 5 MB word": WORD.replace("\0", ""),
        "odd characters": ODD.replace("\0", ""),
        "markup": "[bold]x[/red]",
        "a surrogate": "\udcff\ud800",
    }
    commands = {
        "a command": ("{}",),
        "an option": ("run", "experiment.yaml", "--{}"),
        "a number": ("run", "experiment.yaml", "--workers", "{}"),
        "a choice": ("report", "--format", "{}"),
        "a spec": ("plan", "{}"),
        "--only": ("plan", "experiment.yaml", "--only", "{}"),
        "--only value": ("plan", "experiment.yaml", "--only", "pattern={}"),
        "--only key": ("plan", "experiment.yaml", "--only", "{}=1"),
        "--retry": ("run", "experiment.yaml", "--retry", "{}"),
        "--devices": ("run", "experiment.yaml", "--devices", "{}"),
        "--store": ("run", "experiment.yaml", "--store", "{}"),
        "--plugin": ("plan", "experiment.yaml", "--plugin", "{}.py"),
        "a run": ("report", "{}", "--store", "store"),
        "status of a run": ("status", "{}", "--store", "store"),
        "a cell": ("show", "{}", "--store", "store"),
        "logs of a cell": ("logs", "{}", "--store", "store"),
        "why of a cell": ("why", "{}", "--store", "store"),
        "export of a cell": ("export", "{}", "--store", "store"),
        "a file of masks": ("hardware", "cost", "{}"),
        "an engine": ("hardware", "cost", "layers.yaml", "--engine", "{}"),
        "an engine's value": ("hardware", "cost", "layers.yaml", "--engine", "bank:pes={}"),
        "a model": ("hardware", "cost", "layers.yaml", "--model", "{}"),
        "a device": ("hardware", "cost", "layers.yaml", "--device", "{}"),
        "--set": ("hardware", "cost", "layers.yaml", "--set", "{}"),
        "--output-size": ("hardware", "cost", "layers.yaml", "--output-size", "{}"),
        "--multipliers": ("hardware", "sweep", "layers.yaml", "--multipliers", "{}"),
        "--clock": ("hardware", "sweep", "layers.yaml", "--clock", "{}"),
        "an output": ("schema", "-o", "none/{}"),
        "a plugin": ("plugins", "show", "{}"),
        "data": ("data", "fetch", "{}"),
    }
    for place, command in commands.items():
        for what, word in named.items():
            short = what == "a 5 MB word" and place in ("a command", "--only", "a cell", "an engine", "a number")
            short = short or (what == "odd characters" and place in ("--only", "a run", "a spec"))
            yield Case(
                "texts", f"{what} as {place}", tuple(part.replace("{}", word) for part in command),
                (0, 2, 4, 5, 7) if place == "--store" else (2, 4, 5, 7),
                prepare=_layers, is_short=short,
            )  # fmt: skip
    long = "y" * 500_000
    for key in ("name", "task", "pattern", "strategy", "backend", "label"):
        value = {"label": '{{name: toy, label: "{}"}}', "name": '"{}"'}.get(key, '["{}"]')
        changed = "task" if key == "label" else key
        for what, word in {"a long text": long, "odd characters": r"a\e[31m\0\r\nb\ud800[bold red]\u202e"}.items():
            yield Case(
                "texts", f"{what} as {key} of a spec", ("plan", "experiment.yaml", "--store", "store"), (0, 2),
                prepare=spec(**{changed: value.replace("{}", word)}), is_short=key in ("label", "pattern"),
            )  # fmt: skip
    yield Case(
        "texts", "a label of odd characters in a run", RUN, (0, 2), is_short=True,
        prepare=spec(task=r'{name: toy, label: "a\e[31m\0b[bold red]\u202e"}'),
    )  # fmt: skip
    yield Case("texts", "a long unknown key", ("plan", "experiment.yaml"), prepare=spec(**{long: "1"}))


def _layers(folder: Path, **changes: str) -> None:
    sizes = {"inputs": "64", "units": "64", "density": "0.5", "banks": "4"} | changes
    text = ", ".join(f"{name}: {value}" for name, value in sizes.items())
    (folder / "layers.yaml").write_text(f"version: 1\nlayers:\n  - {{type: lstm, name: lstm_0, {text}}}\n")


def numbers() -> Iterator[Case]:
    """Numbers beyond all reason."""
    plan = ("plan", "experiment.yaml", "--store", "store")
    huge = {"hex": "0x" + "F" * 5000, "octal": "0o" + "7" * 9000, "binary": "0b" + "1" * 20_000, "decimal": "9" * 5000,
            "a sum": "1" + "0" * 12, "negative": "-0x" + "F" * 5000, "a power": "1e308"}  # fmt: skip
    for what, number in huge.items():
        for key in ("threads", "seed", "margin", "keep_dense", "tolerance", "sparsity"):
            value = f"[{number}]" if key in ("seed", "sparsity") else number
            codes = (0, 2) if (what, key) in (("a sum", "seed"),) or key in ("margin", "keep_dense") else (2,)
            yield Case(
                "numbers", f"{what} as {key}", plan, codes, prepare=spec(**{key: value}),
                is_short=key in ("threads", "seed"),
            )  # fmt: skip
        yield Case(
            "numbers", f"{what} as epochs", plan, prepare=spec(strategy=f"[{{name: fine_tuning, epochs: {number}}}]"),
            is_short=True,
        )  # fmt: skip
        for key in ("inputs", "units", "banks", "density"):
            yield Case(
                "numbers", f"{what} as {key} of a layer", ("hardware", "cost", "layers.yaml"), (1, 2),
                prepare=lambda folder, key=key, number=number: _layers(folder, **{key: number}),  # type: ignore[misc]
                is_short=key == "inputs",
            )  # fmt: skip
    many = ", ".join(map(str, range(90_000)))
    yield Case("numbers", "90,000 seeds", plan, prepare=spec(seed=f"[{many}]"), is_short=True)
    many = ", ".join(f"{0.5 + n / 200_000}" for n in range(60_000))
    yield Case("numbers", "60,000 sparsities", plan, prepare=spec(sparsity=f"[{many}]"), is_short=True)
    many = ", ".join(f"{{name: fine_tuning, epochs: {n}}}" for n in range(1, 20_000))
    yield Case("numbers", "20,000 strategies", plan, prepare=spec(strategy=f"[{many}]"))
    yield Case(
        "numbers",
        "a billion epochs of a task",
        plan,
        prepare=spec(task="{name: toy, epochs: 1000000000}"),
        is_short=True,
    )
    for option in ("--multipliers", "--fifo-depth", "--clock"):
        for value in ("1000000000000", "9" * 5000, "1e308", "-1", "0", "nan", ",".join(["7"] * 50_000)):
            yield Case(
                "numbers", f"{value[:20]} as {option}", ("hardware", "sweep", "layers.yaml", option, value), (0, 1, 2),
                prepare=_layers, is_short=value == "1000000000000",
            )  # fmt: skip
    for option in ("--weight-bits", "--act-bits", "--acc-bits", "--banks", "--batch", "--steps", "--bandwidth"):
        for value in ("1000000000000", "9" * 5000, "-1", "nan", "1e308"):
            yield Case(
                "numbers", f"{value[:20]} as {option}", ("hardware", "cost", "layers.yaml", option, value), (0, 1, 2),
                prepare=_layers, is_short=value == "1000000000000" and option in ("--batch", "--banks"),
            )  # fmt: skip
    for key in ("dsp", "bram_36k", "clock_mhz"):
        for value in ("1000000000000", "0xFFFFFFFFFFFFFFFFFFFFFFFF", "1e308"):
            yield Case(
                "numbers", f"{value[:20]} as {key} of a device",
                ("hardware", "cost", "layers.yaml", "--device", "device.yaml"), (0, 1, 2),
                prepare=lambda folder, key=key, value=value: _device(folder, key, value),  # type: ignore[misc]
                is_short=key == "dsp",
            )  # fmt: skip


def _device(folder: Path, key: str, value: str) -> None:
    _layers(folder)
    (folder / "device.yaml").write_text(f"id: mine\nname: Mine\n{key}: {value}\n")


def documents() -> Iterator[Case]:
    """Documents that take long to read."""
    made = {
        "50,000 merge keys": "a: &a {b: 1}\nc:\n" + "  <<: *a\n" * 50_000,
        "50,000 merges of a list": "a: &a {b: 1}\nc:\n  <<: [" + ", ".join(["*a"] * 50_000) + "]\n",
        "999,000 bangs": "!" * 999_000,
        "999,000 bangs in a list": "[" + "! " * 499_000 + "]",
        "999,000 question marks": "? " * 499_000,
        "250,000 keys": "".join(f"{n}:\n" for n in range(120_000)),
        "250,000 equal keys": "a:\n" * 330_000,
        "keys in a row": "{" + ", ".join(f"{n}" for n in range(140_000)) + "}",
        "999,000 brackets": "[" * 999_000,
        "999,000 braces": "{" * 999_000,
        "dashes in a row": "- " * 499_000,
        "499,000 items": "- \n" * 330_000,
        "anchors": "".join(f"- &a{n} 1\n" for n in range(80_000)),
        "aliases": "a: &a 1\nb: [" + "*a, " * 240_000 + "]",
        "laughs": "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
        "one long text": "name: " + "x" * 990_000,
        "one long quoted text": 'name: "' + "\\x41" * 240_000 + '"',
        "backslashes": 'name: "' + "\\\\" * 490_000 + '"',
        "a text of many lines": "name: |\n" + "  x\n" * 240_000,
        "folded lines": "name: >\n" + "  x\n\n" * 190_000,
        "spaces": "name:" + " " * 990_000 + "x",
        "newlines": "\n" * 990_000 + "name: x",
        "comments": "#\n" * 490_000 + "name: x",
        "tabs": "name:\t" + "\t" * 990_000 + "x",
        "tags": "- !t x\n" * 140_000,
        "directives": "%TAG ! x\n" * 100_000 + "---\na: 1",
        "quotes": "'" * 999_000,
        "colons": ":" * 999_000,
        "commas": "[" + "," * 999_000 + "]",
        "percents": "%" * 999_000,
        "pipes": "|" * 999_000,
        "documents": "---\n" * 249_000,
        "ampersands": "&" * 999_000,
        "asterisks": "*" * 999_000,
        "exponents": "a: " + "1" * 990_000,
        "underscores": "a: " + "1_" * 490_000,
        "hexadecimal": "a: 0x" + "F" * 990_000,
        "a date": "a: 2024-01-01T" + "0" * 990_000,
        "indentation": "".join(" " * n + "a:\n" for n in range(1_400)),
    }
    short = ("50,000 merge keys", "999,000 bangs", "250,000 keys", "999,000 brackets", "hexadecimal", "laughs")
    for what, text in made.items():
        for command, file in (
            (("plan", "bad.yaml"), "bad.yaml"),
            (("hardware", "cost", "bad.yaml"), "bad.yaml"),
            (("hardware", "cost", "layers.yaml", "--device", "bad.yaml"), "bad.yaml"),
            (("hardware", "cost", "layers.yaml", "--engine", "bad.yaml"), "bad.yaml"),
            (("hardware", "validate", "--targets", "bad.yaml"), "bad.yaml"),
        ):
            yield Case(
                "documents", f"{what} in {' '.join(command[:2])} {command[-1] if len(command) > 3 else ''}", command,
                prepare=lambda folder, text=text, file=file: (_layers(folder), (folder / file).write_text(text)),  # type: ignore[misc]
                is_short=what in short and command[0] == "plan",
            )  # fmt: skip


OBSTACLES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": lambda path: (path.mkdir(), (path / "inside").touch()),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link loop": lambda path: path.symlink_to(path.name),
    "a dangling link": lambda path: path.symlink_to("/nowhere/at/all"),
    "nothing": lambda path: None,
    "an empty file": lambda path: path.touch(),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "6 GB of nothing": lambda path: _sparse(path, 6 << 30),
}


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


PLACES = {
    "stage.json": "store/stages/*/*/stage.json",
    "masks": "store/stages/*/*/masks.safetensors",
    "a state": "store/stages/*/*/state.safetensors",
    "a stage's folder": "store/stages/*/*",
    "status.json": "store/runs/*/status.json",
    "records.json": "store/runs/*/records.json",
    "spec.yaml": "store/runs/*/spec.yaml",
    "plugins.json": "store/runs/*/plugins.json",
    "report.md": "store/runs/*/report.md",
    "logs": "store/runs/*/logs",
    "format": "store/format",
    "claims": "store/claims",
    "owners": "store/claims/owners",
    "tmp": "store/tmp",
    "costs": "store/costs",
    "runs": "store/runs",
    "a run": "store/runs/*",
}


def _obstruct(folder: Path, pattern: str, make: Callable[[Path], object]) -> None:
    found = sorted(folder.glob(pattern)) or [folder / pattern.replace("*", "none")]
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)


RUN_ID = "<run>"
"""Stands in arguments for the run that the sound store has."""

LOOKS = (
    ("status", "--store", "store"),
    ("status", "--json", "--store", "store"),
    ("verify", "--store", "store"),
    ("compare", RUN_ID, RUN_ID, "--store", "store"),
    ("figures", "--store", "store", "-o", "figures", "-f", "svg"),
    ("report", "--store", "store", "-f", "html", "-o", "out.html"),
    ("report", "--store", "store"),
    ("show", "dense", "--store", "store"),
    ("logs", "dense", "--store", "store"),
    ("why", "dense", "experiment.yaml", "--store", "store"),
    ("plan", "experiment.yaml", "--store", "store"),
    ("export", "unstructured", "--store", "store", "-o", "out.safetensors"),
    ("gc", "--store", "store", "--unreferenced"),
    ("merge", "store", "--store", "other"),
)


def places() -> Iterator[Case]:
    """What is no plain file where a plain file belongs, in a store and where users name files."""
    for where, pattern in PLACES.items():
        for what, make in OBSTACLES.items():
            prepare = lambda folder, pattern=pattern, make=make: _obstruct(folder, pattern, make)  # noqa: E731
            in_folder = where in (
                "runs",
                "claims",
                "owners",
                "tmp",
                "costs",
                "a run",
                "a stage's folder",
                "logs",
                "format",
            )
            healed = (0,) if not in_folder or what == "nothing" else (0, 1, 7)
            yield Case(
                "places", f"{what} for {where}, run", RUN, healed, prepare=prepare,
                is_short=where in ("stage.json", "masks", "records.json", "status.json", "spec.yaml")
                and what in ("a pipe", "a folder", "6 GB of nothing"),
            )  # fmt: skip
            for look in LOOKS:
                yield Case(
                    "places", f"{what} for {where}, {look[0]}", look, (0, 1, 2, 5, 6, 7), prepare=prepare,
                    is_short=(what, where, look[0]) in (
                        ("a pipe", "records.json", "status"), ("a pipe", "status.json", "status"),
                        ("a pipe", "records.json", "gc"), ("a pipe", "stage.json", "verify"),
                    ),
                )  # fmt: skip
    for what, make in OBSTACLES.items():
        for where, command in NAMED.items():
            path = next(part for part in reversed(command) if part.startswith("there"))
            yield Case(
                "places", f"{what} as {where}", command,
                (0, 1, 2, 7) if where in WRITTEN else (0, 1, 2, 4, 5, 6, 7) if "plugin" in where else (2, 4, 5, 7),
                prepare=lambda folder, path=path, make=make: (_layers(folder), make(folder / path)),  # type: ignore[misc]
                is_short=what in ("a pipe", "a link loop") and where in ("a spec", "weights", "an output", "a plugin"),
            )  # fmt: skip
    for where, (prepare_place, environment) in SURROUNDINGS.items():
        for command in (RUN, *SOME):
            yield Case(
                "places", f"in {where}, {' '.join(command[:2])}", command, (0, 1, 2, 5, 7),
                prepare=lambda folder, make=prepare_place: (_layers(folder), make(folder)),  # type: ignore[misc]
                environment=environment, is_fresh=True, is_short=where == "a linked store" and command == RUN,
            )  # fmt: skip


NAMED = {
    "a spec": ("plan", "there"),
    "a spec to validate": ("validate", "there.yaml"),
    "a spec to run": ("run", "there.yaml", "--store", "store"),
    "a workload": ("hardware", "cost", "there.yaml"),
    "a workload to sweep": ("hardware", "sweep", "there.yaml", "--engine", "bank"),
    "masks of a user": ("hardware", "cost", "there.npz"),
    "an array": ("hardware", "cost", "there.npy"),
    "a sparse matrix": ("hardware", "cost", "there.mtx"),
    "a pattern of zeros": ("hardware", "cost", "there.smtx"),
    "masks to sweep": ("hardware", "sweep", "there.npz", "--engine", "bank"),
    "weights": ("hardware", "cost", "there.safetensors"),
    "an index of weights": ("hardware", "cost", "there.safetensors.index.json"),
    "a model": ("hardware", "cost", "there.onnx"),
    "a device": ("hardware", "cost", "layers.yaml", "--device", "there.yaml"),
    "an engine": ("hardware", "cost", "layers.yaml", "--engine", "there.yaml"),
    "targets": ("hardware", "validate", "--targets", "there.yaml"),
    "a plugin": ("plan", "experiment.yaml", "--plugin", "there.py"),
    "a plugin to run": ("run", "experiment.yaml", "--store", "store", "--plugin", "there.py"),
    "a plugin to check": ("plugins", "check", "there.py"),
    "a plugin of a schema": ("schema", "--plugin", "there.py"),
    "a plugin of a report": ("report", "--store", "store", "--plugin", "there.py"),
    "a run to report": ("report", "there"),
    "records to compare": ("compare", "there.json", "there.json"),
    "records to verify": ("verify", "there.json"),
    "a run to draw": ("figures", "there"),
    "a store to merge": ("merge", "there", "--store", "store"),
    "a store to clear": ("gc", "--store", "there"),
    "a store to look at": ("status", "--store", "there"),
    "a store to report": ("report", "--store", "there"),
    "a store to export from": ("export", "unstructured", "--store", "there"),
    "data to fetch into": ("data", "fetch", "mnist", "--data-dir", "there", "--base-url", "http://127.0.0.1:9"),
    "an output": ("schema", "-o", "there.json"),
    "an export": ("export", "unstructured", "--store", "store", "-o", "there.safetensors"),
    "memory files": ("export", "unstructured", "--store", "store", "-f", "csr", "-o", "x.npz", "--hex", "there"),
    "a picture": ("report", "--store", "store", "--picture", "there.svg"),
    "a page": ("report", "--store", "store", "-f", "html", "-o", "there.html"),
    "figures": ("figures", "--store", "store", "-f", "svg", "-o", "there"),
    "designs": ("hardware", "sweep", "layers.yaml", "--engine", "bank", "-o", "there.csv"),
    "a comparison": ("compare", RUN_ID, RUN_ID, "--store", "store", "-o", "there.md"),
    "a starter": ("init", "there.yaml"),
    "a store": ("run", "experiment.yaml", "--store", "there"),
    "a store to plan for": ("plan", "experiment.yaml", "--store", "there"),
    "a store to merge into": ("merge", "store", "--store", "there"),
}
"""What users name on a command line, and a command that is given it under the name `there`."""

WRITTEN = (
    "an output", "an export", "memory files", "a picture", "a page", "figures", "designs", "a comparison", "a starter",
    "a store", "a store to plan for", "a store to merge into", "data to fetch into", "a plugin of a report",
)  # fmt: skip
"""Those of them that are made, or may be missing."""


def _moved(folder: Path) -> None:
    """A store that is a link to a folder elsewhere."""
    shutil.move(folder / "store", folder / "elsewhere")
    (folder / "store").symlink_to("elsewhere")


SOME = (
    ("report", "--store", "store"), ("validate", "experiment.yaml"), ("hardware", "cost", "layers.yaml"), ("--help",),
)  # fmt: skip
"""Commands that between them read a store, plugins, descriptions and nothing."""

SURROUNDINGS: dict[str, tuple[Callable[[Path], object], Mapping[str, str]]] = {
    "a linked store": (_moved, {}),
    "no home": (_nothing, {"HOME": ""}),
    "a home that is none": (_nothing, {"HOME": "/nowhere/at/all"}),
    "no place for temporary files": (_nothing, {"TMPDIR": "/nowhere/at/all"}),
    "a dumb terminal": (_nothing, {"TERM": "dumb"}),
    "a terminal of one column": (_nothing, {"COLUMNS": "1", "LINES": "1"}),
    "a terminal of no columns": (_nothing, {"COLUMNS": "0"}),
    "columns that are no number": (_nothing, {"COLUMNS": "x", "LINES": "-7"}),
    "colours by force": (_nothing, {"FORCE_COLOR": "1", "NO_COLOR": "1"}),
    "optimised Python": (_nothing, {"PYTHONOPTIMIZE": "2"}),
    "warnings as errors": (_nothing, {"PYTHONWARNINGS": "error"}),
    "a warning filter that is none": (_nothing, {"PYTHONWARNINGS": "nonsense"}),
    "another hash seed": (_nothing, {"PYTHONHASHSEED": "12345"}),
    "unbuffered": (_nothing, {"PYTHONUNBUFFERED": "1"}),
    "threads that are no number": (_nothing, {"OMP_NUM_THREADS": "x"}),
    "a store variable of nothing": (_nothing, {"HARNESS_STORE": "", "HARNESS_DATA": ""}),
}
"""What a command finds around it, beside its arguments."""


def claims() -> Iterator[Case]:
    """What a run says of itself, and masks, made up."""
    absurd = [
        "Infinity",
        "-Infinity",
        "NaN",
        "-1",
        "1e308",
        "-1e308",
        "99999999999999999999",
        "[]",
        "null",
        '"x"',
        "{}",
    ]
    keys = (
        "started",
        "written",
        "left_s",
        "epochs",
        "epochs_done",
        "workers",
        "pid",
        "cells",
        "running",
        "state",
        "host",
    )
    for key in keys:
        for value in absurd:
            for command in (("status", "--store", "store"), ("status", "--json", "--store", "store"), RUN):
                yield Case(
                    "claims", f"{key} is {value} in status.json, {command[0]}", command, (0, 2, 5, 7),
                    prepare=lambda folder, key=key, value=value: _say(folder, key, value),  # type: ignore[misc]
                    is_short=value in ("Infinity", "NaN", "1e308") and key in ("started", "left_s") and command != RUN,
                )  # fmt: skip
    for what in ("other shape", "other size", "all false", "more tensors"):
        yield Case(
            "claims", f"masks of {what}, with a checksum that fits", RUN, (0,),
            is_short=what == "other shape",
            prepare=lambda folder, what=what: _forge(folder, what),  # type: ignore[misc]
        )  # fmt: skip
        for look in LOOKS:
            yield Case(
                "claims", f"masks of {what}, {look[0]}", look, (0, 1, 2, 6, 7),
                prepare=lambda folder, what=what: _forge(folder, what),  # type: ignore[misc]
            )  # fmt: skip


def _say(folder: Path, key: str, value: str) -> None:
    for path in (folder / "store" / "runs").glob("*/status.json"):
        content = json.loads(path.read_text())
        content |= {"state": "running", "running": [{"stage": "a", "label": "b", "since": 1.0, "step": 1, "steps": 2}]}
        text = json.dumps(content | {key: "@"})
        path.write_text(text.replace('"@"', value))


def _forge(folder: Path, what: str) -> None:
    """Masks of another kind in every stage, with records and checksums that fit."""
    import numpy as np
    from safetensors.numpy import load, save

    from harness._files import sha256
    from harness.store import MASKS, Store

    store = Store(folder / "store")
    for key in store.keys():
        record = store.read(key)
        path = store.stage_folder(key) / MASKS
        if record is None or not path.exists():
            continue
        arrays = dict(load(path.read_bytes()))
        for there in [name.removeprefix("bits/") for name in arrays if name.startswith("bits/")]:
            rows, cols = map(int, arrays[f"shape/{there}"])
            shape = {"other shape": (cols, rows), "other size": (rows + 1, cols)}.get(what, (rows, cols))
            tensor = f"{there}2" if what == "more tensors" else there
            made = np.full(shape, what != "all false")
            arrays |= {f"bits/{tensor}": np.packbits(made), f"shape/{tensor}": np.array(shape)}
        content = save(arrays)
        path.write_bytes(content)
        store.write_record(record.model_copy(update={"checksums": record.checksums | {MASKS: sha256(content)}}))


def space() -> Iterator[Case]:
    """No room to write."""
    writes: dict[str, tuple[tuple[str, ...], str]] = {
        "an export": (("export", "unstructured", "--store", "store", "-o", "out.safetensors"), "out.safetensors"),
        "a packed export": (
            ("export", "unstructured", "--store", "store", "-f", "csr", "-o", "out.npz", "--hex", "hex"), "out.npz"),
        "a report": (("report", "--store", "store", "-f", "md", "-o", "out.md"), "out.md"),
        "a page": (("report", "--store", "store", "-f", "html", "-o", "out.html"), "out.html"),
        "a table": (("report", "--store", "store", "-f", "csv", "-o", "out.csv"), "out.csv"),
        "a picture": (("report", "--store", "store", "--picture", "out.png"), "out.png"),
        "a schema": (("schema", "-o", "out.json"), "out.json"),
        "designs": (("hardware", "sweep", "layers.yaml", "--engine", "bank", "-o", "out.csv"), "out.csv"),
        "a starter": (("init", "out.yaml"), "out.yaml"),
        "a plugin": (("plugins", "new", "pattern", "mine"), "mine.py"),
    }  # fmt: skip
    for what, (command, name) in writes.items():
        for size in (0, 100):
            yield Case(
                "space", f"files of at most {size} bytes for {what}", command, (2, 7), prepare=_layers,
                limits={resource.RLIMIT_FSIZE: size}, check=lambda folder, name=name: _absent(folder / name),  # type: ignore[misc]
                stdout="/dev/null", stderr="/dev/null", is_short=size == 100 and what != "a picture",
            )  # fmt: skip
    for size in (0, 200, 1000, 3000):
        yield Case(
            "space", f"files of at most {size} bytes for a run", ("run", *RUN[1:3], "new", *RUN[4:]), (1, 7),
            limits={resource.RLIMIT_FSIZE: size}, stdout="/dev/null", stderr="/dev/null", is_short=size == 200,
        )  # fmt: skip
    commands = (RUN, *LOOKS, ("plugins", "list"), ("schema",), ("hardware", "cost", "layers.yaml"), ("--help",),
                ("validate", "experiment.yaml"), ("status", "--json", "--store", "store"), ("--version",))  # fmt: skip
    for command in commands:
        for stdout, stderr, codes in (
            ("/dev/full", "", (0, 7)),
            ("", "/dev/full", (0, 7)),
            ("/dev/full", "/dev/full", (0, 7)),
            ("closed", "", (0, 7)),
            ("", "closed", (0, 7)),
            ("closed", "closed", (0, 7)),
        ):
            yield Case(
                "space", f"stdout {stdout or 'kept'}, stderr {stderr or 'kept'}, {command[0]}", command, codes,
                stdout=stdout, stderr=stderr, prepare=_layers,
                is_short="/dev/full" in (stdout, stderr) and command[0] in ("run", "report", "--help"),
            )  # fmt: skip


def _absent(path: Path) -> None:
    assert not path.exists(), f"half of {path.name}"


def locales() -> Iterator[Case]:
    """Terminals and file names of other encodings; every command in an interpreter of its own."""
    label = spec(task='{name: toy, label: "Tâsk · 任务"}')
    for name, environment in {
        "POSIX": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        "latin-1": {"PYTHONIOENCODING": "latin-1:strict", "LC_ALL": "C"},
        "ASCII": {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"},
    }.items():
        for command in (RUN, *LOOKS, ("plugins", "list"), ("--help",)):
            yield Case(
                "locales", f"{name}, {command[0]}", command, (0, 1, 2, 5), prepare=label, environment=environment,
                is_fresh=True, is_short=name == "POSIX" and command[0] in ("run", "report"),
            )  # fmt: skip
    odd = os.fsdecode(b"caf\xe9")
    for command, codes in {
        ("plan", f"{odd}.yaml", "--store", "store"): (0, 2),
        ("run", f"{odd}.yaml", "--store", f"{odd}-store", "--workers", "1"): (0,),
        ("report", "--store", "store", "-f", "md", "-o", f"{odd}.md"): (0,),
        ("schema", "-o", f"{odd}/there.json"): (0,),
        ("hardware", "cost", f"{odd}.npz"): (2,),
        ("show", odd, "--store", "store"): (5,),
        ("plan", "experiment.yaml", "--only", f"pattern={odd}"): (2, 5),
    }.items():
        yield Case(
            "locales", f"a name that is no UTF-8, {command[0]}", command, codes,
            prepare=lambda folder: shutil.copy(folder / "experiment.yaml", folder / f"{odd}.yaml"),
            environment={"LC_ALL": "POSIX"}, is_short=command[0] in ("run", "schema"),
        )  # fmt: skip


def headers() -> Iterator[Case]:
    """Files of arrays whose headers lie, or whose members are damaged."""
    commands = (
        ("hardware", "cost", "{}"),
        ("hardware", "sweep", "{}", "--engine", "bank", "--multipliers", "16"),
        ("hardware", "cost", "{}", "--layout", "rows_in", "--banks", "2"),
    )
    for name, make in _arrays().items():
        for command in commands:
            file = f"there.{name.partition(' ')[0]}"
            yield Case(
                "headers", f"{name}, {' '.join(command[1:4:2])}", tuple(part.replace("{}", file) for part in command),
                (2,), prepare=lambda folder, make=make, file=file: (folder / file).write_bytes(make()),  # type: ignore[misc]
                limits={resource.RLIMIT_AS: 6 << 30}, is_short=command == commands[0] and "deflate" in name,
            )  # fmt: skip
    for what, changed in {
        "bits of 64-bit numbers": ("bits", "U8", "I64"), "a shape of reals": ("shape", "I64", "F64"),
        "bits of truths": ("bits", "U8", "BOOL"), "a shape of small numbers": ("shape", "I64", "I8"),
    }.items():  # fmt: skip
        for command, codes in ((RUN, (0,)), (LOOKS[2], (0, 6, 7)), (LOOKS[6], (0, 2, 7)), (LOOKS[5], (0,))):
            yield Case(
                "headers", f"masks with {what}, {command[0]}", command, codes,
                prepare=lambda folder, changed=changed: _mistyped(folder, *changed),  # type: ignore[misc]
            )  # fmt: skip


def _arrays() -> dict[str, Callable[[], bytes]]:
    """Contents of files, by what they are called and hold; the first word is the suffix."""

    def npy(header: str, data: bytes = bytes(64)) -> bytes:
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data

    def zipped(members: Mapping[str, bytes], method: int = 0) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", method) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return made.getvalue()

    def damaged(method: int) -> bytes:
        content = bytearray(zipped({"a.npy": npy(whole, os.urandom(4096))}, method))
        content[200:400] = os.urandom(200)
        return bytes(content)

    def tensors(header: str | bytes, data: bytes = bytes(64), length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else header.encode()
        return (len(text) if length is None else length).to_bytes(8, "little") + text + data

    def tensor(shape: str, dtype: str = "F32", offsets: str = "[0, 64]") -> bytes:
        return tensors(f'{{"a": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}')

    whole = "{'descr': '<f4', 'fortran_order': False, 'shape': (32, 32)}\n"
    lies = {
        "truths in the shape": whole.replace("(32, 32)", "(True, True)"),
        "a truth for a type": whole.replace("'<f4'", "True"),
        "a truth for a header": "True\n",
        "no header": "",
        "a nest": whole.replace("(32, 32)", "(" * 3000 + "1" + ")" * 3000),
        "a nest of lists": "[" * 60_000,
        "a nest of signs": whole.replace("(32, 32)", f"({'-' * 50_000}1,)"),
        "a huge shape": whole.replace("(32, 32)", "(1000000000000, 1000000000000)"),
        "a shape that overflows": whole.replace("(32, 32)", f"({2**63}, {2**63})"),
        "a shape of many digits": whole.replace("(32, 32)", f"({'9' * 5000}, 1)"),
        "a negative shape": whole.replace("(32, 32)", "(-1, 32)"),
        "a zero and a huge one": whole.replace("(32, 32)", "(0, 1000000000000)"),
        "a hundred axes": whole.replace("(32, 32)", f"({'1, ' * 100})"),
        "objects": whole.replace("<f4", "|O"),
        "a type of fields": whole.replace("'<f4'", "[('a', '<f4'), ('b', '|O')]"),
        "a type of a huge item": whole.replace("<f4", f"|V{2**40}"),
        "a call": whole.replace("(32, 32)", "__import__('os').getpid()"),
        "an unknown key": whole.replace("'shape'", "'more': 1, 'shape'"),
        "dates": whole.replace("<f4", "<M8[s]"),
    }
    found: dict[str, Callable[[], bytes]] = {}
    for what, header in lies.items():
        found[f"npy with {what}"] = partial(npy, header[:65_000])
        found[f"npz with {what}"] = partial(lambda header: zipped({"a.npy": npy(header)}), header[:65_000])
    for what, method in {"deflate": 8, "bzip2": 12, "lzma": 14}.items():
        found[f"npz with a damaged member of {what}"] = partial(damaged, method)
    bomb = npy(whole.replace("(32, 32)", "(32768, 32768)"), bytes(1 << 28))
    found |= {
        "npz of 20,000 members": lambda: zipped({f"{n}.npy": b"" for n in range(20_000)}),
        "npz of equal members": lambda: zipped({"a.npy": npy(whole)}) + zipped({"a.npy": npy(whole)}),
        "npz that is a bomb": lambda: zipped({"a.npy": bomb}, 8),
        "npz without an end": lambda: zipped({"a.npy": npy(whole, bytes(4096))})[:-30],
        "npz with a part of a member": lambda: zipped({"a.npy": npy(whole)}),
        "safetensors of an overflow": lambda: tensor(f"[{2**32}, {2**32}]"),
        "safetensors of a larger overflow": lambda: tensor(f"[{2**63}, 2]"),
        "safetensors of many digits": lambda: tensor(f"[{'9' * 5000}]"),
        "safetensors of zero and a huge one": lambda: tensor(f"[0, {2**62}]", offsets="[0, 0]"),
        "safetensors of zeros": lambda: tensor("[0, 0]", offsets="[0, 0]"),
        "safetensors of truths": lambda: tensor("[true, true]"),
        "safetensors of reals": lambda: tensor("[4.0, 4.0]"),
        "safetensors of a negative shape": lambda: tensor("[-4, -4]"),
        "safetensors of a negative place": lambda: tensor("[4, 4]", offsets="[-64, 0]"),
        "safetensors of places backwards": lambda: tensor("[4, 4]", offsets="[64, 0]"),
        "safetensors of places beyond the file": lambda: tensor("[4, 4]", offsets=f"[{2**60}, {2**60 + 64}]"),
        "safetensors of an unknown type": lambda: tensor("[4, 4]", dtype="F33"),
        "safetensors of a type that is none": lambda: tensor("[4, 4]").replace(b'"F32"', b"true "),
        "safetensors of a thousand axes": lambda: tensor(f"[{', '.join(['1'] * 1000)}]"),
        "safetensors of a nest": lambda: tensors("[" * 100_000),
        "safetensors of a truth": lambda: tensors("true"),
        "safetensors of a list": lambda: tensors("[]"),
        "safetensors of no UTF-8": lambda: tensors(b"{\xff}"),
        "safetensors of a huge header": lambda: tensors("{}", length=1 << 62),
        "safetensors of no header": lambda: tensors("", length=0),
        "safetensors of two equal names": lambda: tensors(
            '{"a": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}, '
            '"a": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}, "b": 1}'
        ),
        "safetensors of metadata that is none": lambda: tensors('{"__metadata__": 3, "a": 1}'),
    }  # fmt: skip
    return found


def _mistyped(folder: Path, part: str, was: str, now: str) -> None:
    """Masks whose header names another type, as long as its items allow, with records and checksums that fit."""
    import numpy as np
    from safetensors.numpy import load, save

    from harness._files import sha256
    from harness.store import MASKS, Store

    types = {"I64": np.int64, "F64": np.float64, "BOOL": np.bool_, "I8": np.int8}
    store = Store(folder / "store")
    for key in store.keys():
        record = store.read(key)
        path = store.stage_folder(key) / MASKS
        if record is not None and path.exists():
            arrays = load(path.read_bytes())
            content = save({
                name: array.astype(types[now]) if name.startswith(part) else array for name, array in arrays.items()
            })  # fmt: skip
            path.write_bytes(content)
            store.write_record(record.model_copy(update={"checksums": record.checksums | {MASKS: sha256(content)}}))


KINDS: dict[str, Callable[[], Iterator[Case]]] = {
    "texts": texts, "numbers": numbers, "documents": documents, "places": places, "claims": claims, "headers": headers,
    "space": space,
    "locales": locales,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; 1 if one was not answered."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--short", action="store_true", help="a choice of the cases")
    parser.add_argument("--verbose", action="store_true", help="print every case as it ends")
    parser.add_argument("--match", default="", help="only cases whose name holds this")
    given = parser.parse_args(arguments)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(SUPPORT), str(Path(__file__).parents[1])])
    sys.path.insert(0, str(SUPPORT))
    _import()
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        ground = Ground(folder)
        ground.prepare()
        return report(ground, given.kinds or list(KINDS), given.match, short=given.short, verbose=given.verbose)
    finally:
        _remove(folder)


def _import() -> None:
    """Import what every command needs, so that a forked one begins at once."""
    import harness.cli
    import harness.costing.costs
    import harness.execution.run
    import harness.inspection.pages
    import harness.planning.plan
    import harness.report
    from harness.discovery.finding import discover

    assert harness.cli and harness.report
    discover()


def report(ground: Ground, kinds: Sequence[str], match: str, *, short: bool, verbose: bool) -> int:
    """Run the cases of some kinds and print what they came to."""
    print(f"{'kind':12} {'cases':>6} {'answered':>9} {'slowest':>9}")
    faults = []
    for kind in kinds:
        cases = [case for case in KINDS[kind]() if match in case.name and (case.is_short or not short)]
        answers = []
        for case in cases:
            answers.append(ground.answer(case))
            if verbose:
                print(f"  {answers[-1].seconds:6.2f} s {case.name[:90]} {answers[-1].fault[-300:]}", flush=True)
        wrong = [answer for answer in answers if answer.fault]
        slowest = max(answers, key=lambda answer: answer.seconds, default=None)
        if slowest is not None:
            print(
                f"{kind:12} {len(answers):6} {len(answers) - len(wrong):9} {slowest.seconds:7.1f} s  "
                f"{slowest.case.name[:60]}",
                flush=True,
            )
        faults += wrong
        for answer in wrong:
            print(f"  {answer.case.name}: {answer.fault}", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
