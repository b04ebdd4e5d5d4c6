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
from typing import ClassVar

from numpy_plugins import NumpyBackend, NumpySession, ToyTask
from toy import FineTuning, Rewinding, experiment

from harness.api import HarnessError, Problem, Session, Settings
from harness.execution.progress import Progress
from harness.execution.ray import RayExecutor
from harness.execution.run import run

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
NODES = 3


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
        os.kill(os.getppid(), 9)
        time.sleep(60)  # it dies of its parent's death, a little later


class OnceAllWork(Progress):
    """Does something once, as soon as every node has an actor that works."""

    def __init__(self, executor: RayExecutor, act: Callable[[], object]) -> None:
        self._executor, self._act, self._is_done = executor, act, False

    def finished(self, *stage: object, **more: object) -> None:
        if not self._is_done and sum(slot.is_placed for slot in self._executor._slots) == NODES:
            self._is_done = True
            self._act()


def grid():
    """Three seeds, so that three nodes have something to do from the beginning."""
    from harness_plugins.patterns.bank_balanced import BankBalanced
    from harness_plugins.patterns.unstructured import Unstructured

    return experiment(
        (FineTuning(), Rewinding()), patterns=(Unstructured(), BankBalanced(banks=5)), seeds=(0, 1, 2), name="grid"
    )


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
    with cluster() as made:
        nodes = [made.add_node(**NODE, wait=False) for _ in range(NODES - 1)]
        made.wait_for_nodes()

        def ray(**options):
            return RayExecutor(made.address, **options)

        executor = ray()
        loss = OnceAllWork(executor, lambda: made.remove_node(nodes[0], allow_graceful=False))
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
