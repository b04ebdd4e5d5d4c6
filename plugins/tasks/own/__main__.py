"""Describes a user's model in a process of its own: the one that plans never imports a framework."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from harness.api import HarnessError, NativeModel, PluginUnavailableError

from .opened import Opened


def main(asked: Path, answer: Path) -> None:
    """Read what is asked for, write what was found or why there is nothing."""
    given = json.loads(asked.read_text())
    # Before a user's file imports it: `tf.keras` is then the Keras that the toolkit prunes.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        data_dir = Path(given["data_dir"]) if given["data_dir"] else None
        opened = Opened(given["entry"], Path(given["folder"]), given["parameters"], data_dir, smoke=given["smoke"])
        network, recipe = opened.network, opened.recipe
        # At least one rate, which is what a model that is not trained any more is asked for.
        rates = [recipe.learning_rate.at(epoch) for epoch in range(max(1, recipe.epochs))]
        found = {
            "network": network.model_dump(mode="json"),
            "listed": [each.model_dump(mode="json") for each in network.listed],
            "traced": {layer: asdict(each) for layer, each in network.traced.items()},
            "steps": network.steps,
            "recipe": {**recipe.model_dump(mode="json", exclude={"learning_rate"}), "rates": rates},
            "metric": opened.metric.model_dump(mode="json"),
            "fingerprint": opened.fingerprint(),
            "facts": {"model": given["entry"], **_holders(network), **opened.own.facts},
        }
    except (HarnessError, MemoryError) as error:
        kind = "plugin" if isinstance(error, PluginUnavailableError) else "spec"
        found = {"error": str(error), "kind": kind}
    answer.write_text(json.dumps(found))


def _holders(network: NativeModel) -> dict[str, str]:
    """Who holds the masks of a Keras model, for its records."""
    if network.framework != "keras":
        return {}
    wrapped = ", ".join(network.wrapped)
    return {"masks": f"held by TF-MOT in {wrapped}, elsewhere by the harness" if wrapped else "held by the harness"}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
