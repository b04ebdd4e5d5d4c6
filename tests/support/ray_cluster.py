"""A Ray cluster of three small nodes on this machine, and runs on it; a process of its own, and a module on its nodes.

python ray_cluster.py FOLDER        a store per scenario below FOLDER; what they came to, as JSON, in FOLDER/found.json
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from numpy_plugins import NumpyBackend, NumpySession, ToyTask
from toy import FineTuning, Rewinding, experiment

from harness.api import EpochResult, HarnessError, Problem, Session, Settings
from harness.execution.progress import Progress
from harness.execution.ray import RayExecutor
from harness.execution.run import run

if TYPE_CHECKING:
    from ray._private.node import Node

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
NODES = 3
GATE = "TOY_GATE"


class Fragile(NumpyBackend):
    """Says where it computes, and breaks the way that its parameter says, wherever it runs."""

    name: ClassVar[str] = "fragile"
    breaks: str = ""

    def versions(self) -> dict[str, str]:
        return {**super().versions(), "toy": os.environ.get("TOY_VERSION", "1")}

    def open(self, problem: Problem, settings: Settings) -> Session:
        os.environ["TOY_BREAKS"] = self.breaks
        print(f"{settings.device} of {os.environ.get('CUDA_VISIBLE_DEVICES')}, {os.environ['OMP_NUM_THREADS']} threads")
        return ActorKiller(problem, settings) if self.breaks == "actor" else NumpySession(problem, settings)


class ActorKiller(NumpySession):
    """Takes the actor with it whose worker it is."""

    def train_epoch(self, *args: object) -> None:
        keeper = Path(f"/proc/{os.getppid()}/stat").read_text()  # between the two
        os.kill(int(keeper.rpartition(")")[2].split()[1]), 9)
        time.sleep(60)  # it dies of the actor's death, a little later


class Gated(NumpyBackend):
    """On the node that is going to be lost, its second epoch never ends; on the others none begins before that."""

    name: ClassVar[str] = "gated"

    def open(self, problem: Problem, settings: Settings) -> Session:
        return GatedSession(problem, settings)


class GatedSession(NumpySession):
    """Waits at the gate, where there is one: a run on one machine has none."""

    epochs_here: ClassVar[int] = 0  # of this process

    def train_epoch(self, *args: object) -> EpochResult:
        GatedSession.epochs_here += 1
        if GATE in os.environ:
            gate = Gate(Path(os.environ[GATE]))
            if gate.is_of_lost_node():
                if GatedSession.epochs_here > 1:
                    gate.hold()
            else:
                gate.wait()
        return super().train_epoch(*args)


class Gate:
    """Files by which a run and its nodes agree on the moment when a node is lost: while it computes, whatever is slow.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._lost_raylet, self._held = folder / "lost_raylet", folder / "held"

    def close_for(self, node: "Node") -> None:
        """Choose the node to be lost."""
        self._lost_raylet.write_text(str(node.all_processes["raylet"][0].process.pid))

    def is_of_lost_node(self) -> bool:
        """Whether this process runs on it: Ray tells its workers, and they their children, whose they are."""
        return os.environ["RAY_RAYLET_PID"] == self._lost_raylet.read_text()

    @property
    def holds(self) -> bool:
        """Whether the node has begun what it will not end."""
        return self._held.exists()

    def hold(self) -> None:
        """Begin and do not end: the node's loss is the end of this process."""
        self._held.touch()
        while True:
            time.sleep(1)

    def wait(self) -> None:
        """Let the node begin first."""
        while not self.holds:
            time.sleep(0.05)


class OnceItHolds(Progress):
    """Loses the node as soon as it is known to compute."""

    def __init__(self, gate: Gate, lose: Callable[[], object]) -> None:
        self._gate, self._lose, self._is_done = gate, lose, False

    def finished(self, *stage: object, **more: object) -> None:
        if not self._is_done and self._gate.holds:
            self._is_done = True
            self._lose()


def grid():
    """Three seeds, so that three nodes have something to do from the beginning."""
    from harness_plugins.patterns.bank_balanced import BankBalanced
    from harness_plugins.patterns.unstructured import Unstructured

    made = experiment(
        (FineTuning(), Rewinding()), patterns=(Unstructured(), BankBalanced(banks=5)), seeds=(0, 1, 2), name="grid"
    )
    return replace(made, cells=tuple(replace(cell, backend=Gated()) for cell in made.cells))


def small(breaks: str = "", **changes):
    """One dense model and one pruned one."""
    made = experiment((FineTuning(epochs=1),), task=ToyTask(epochs=2), name="small")
    cells = tuple(replace(cell, backend=Fragile(breaks=breaks)) for cell in made.cells)
    return replace(made, cells=cells, **changes)


@contextmanager
def cluster() -> Iterator[object]:
    """The nodes, each a raylet of its own."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        yield made
    finally:
        made.shutdown()


def main(folder: Path) -> None:
    found = {}
    os.environ[GATE] = str(folder)  # before there are nodes, which inherit it
    gate = Gate(folder)
    with cluster() as made:
        nodes = [made.add_node(**NODE, wait=False) for _ in range(NODES - 1)]
        made.wait_for_nodes()
        gate.close_for(nodes[0])

        def ray(**options):
            return RayExecutor(made.address, **options)

        executor = ray()
        loss = OnceItHolds(gate, lambda: made.remove_node(nodes[0], allow_graceful=False))
        result = run(grid(), store=folder / "grid", executor=executor, progress=loss)
        found["grid"] = [record.model_dump(mode="json") for record in result.records]
        found["lost"] = executor.losses.total()
        result = run(grid(), store=folder / "grid", executor=ray())
        found["again"] = [record.status for record in result.records]

        for breaks in ("killed@1", "actor"):
            result = run(small(breaks), store=folder / breaks, executor=ray(retries=1))
            found[breaks] = [(record.status, record.reason) for record in result.records]

        try:
            run(small(device="cuda:5"), store=folder / "no_gpu", executor=ray())
        except HarnessError as error:
            found["no_gpu"] = (type(error).__name__, str(error))

        made.add_node(**NODE, num_gpus=1)
        result = run(small(device="cuda:5"), store=folder / "gpu", executor=ray())
        found["gpu"] = [record.status for record in result.records]
        found["logs"] = [path.read_text() for path in sorted((result.folder / "logs").glob("*.log"))]

        os.environ["TOY_VERSION"] = "2"  # of this process, not of the nodes
        result = run(small(), store=folder / "versions", executor=ray())
        found["versions"] = [(record.status, record.reason) for record in result.records]
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    # What is sent to nodes has to be found there by its name, which is not `__main__`.
    import ray_cluster

    ray_cluster.main(Path(sys.argv[1]))
