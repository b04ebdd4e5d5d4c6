"""Where stages are computed: how many workers, on which devices."""

import re

from harness.api import SpecError
from harness.execution.machine import cores

_ENTRY = re.compile(r"(cpu|cuda:\d+)(?:\s*x\s*(\d+))?")


def parse_devices(text: str) -> tuple[str, ...]:
    """The devices of an option: one for every worker, e.g. `cuda:0,cuda:1x2` for three workers on two GPUs.

    Raises:
        SpecError: an entry is no device with a count, or CPU and GPUs are mixed: they are different computations.
    """
    devices: list[str] = []
    for entry in text.split(","):
        match = _ENTRY.fullmatch(entry.strip())
        if match is None or match[2] == "0":
            raise SpecError(
                f"devices: expected cpu or cuda:N, each with xCOUNT for several workers, got {entry.strip()!r}; "
                "write e.g. `--devices cuda:0,cuda:1x2` or `--devices cpux4`"
            )
        devices += [match[1]] * int(match[2] or 1)
    kinds = {device.partition(":")[0] for device in devices}
    if len(kinds) > 1:
        raise SpecError(
            f"devices: expected devices of one kind, since their results are not the same, got {text!r}; "
            "run the experiment once for each kind"
        )
    return tuple(devices)


def default_workers(threads: int, devices: frozenset[str] = frozenset({"cpu"})) -> int:
    """As many one-framework processes as the cores hold; one where a GPU does the work.

    Args:
        threads: CPU threads of every worker.
        devices: where the backends compute.
    """
    # More processes than cores only wait for each other; a GPU computes one model after another anyway.
    return max(1, cores() // threads) if devices <= {"cpu"} else 1
