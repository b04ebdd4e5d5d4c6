"""Initial weights drawn afresh, and masks that move, through worker processes and the store."""

from harness_plugins.strategies.reinitialise import Reinitialise
from harness_plugins.strategies.rigl import RigL
from toy import experiment

from harness.api import Phase, Prune, Recipe, Rewind, Strategy, Train
from harness.execution.run import run
from harness.planning.plan import make_plan
from harness.store import Store


class BackToTheStart(Strategy):
    """As `reinitialise`, with the weights of the start."""

    name = "back_to_the_start"

    def program(self, recipe: Recipe, sparsity: float) -> tuple[Phase, ...]:
        dense = Train(epochs=recipe.epochs, lr=recipe.learning_rate)
        return dense, Prune(sparsity=sparsity), Rewind(to=0), dense


def test_new_weights_are_other_weights_under_the_same_masks_for_every_seed(tmp_path):
    grid = experiment((Reinitialise(), BackToTheStart(), RigL(every=3)), seeds=(0, 1))

    done = run(grid, store=tmp_path, workers=1)

    assert [record.status for record in done.records] == ["ok"] * 8
    assert {record.sparsity for record in done.records[2:]} == {0.5}
    store, states, masks = Store(tmp_path), [], []
    for planned in make_plan(grid, store=tmp_path).cells[2:6]:
        place = next(index for index, stage in enumerate(planned.chain) if stage.kind == "rewind")
        states.append(store.read(planned.chain[place].key).digest)
        masks.append(store.masks(store.read(planned.chain[place].key)))
    assert len(set(states)) == 4  # new and old weights, of two seeds
    for new, old in zip(masks[:2], masks[2:], strict=True):
        assert all((new[name] == old[name]).all() for name in new)
