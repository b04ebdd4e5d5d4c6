"""The copy of an experiment beside the records of its run; `harness.inspection.experiments` reads it back."""

import json
from pathlib import Path

from harness._files import write_atomic
from harness.api import StoreError
from harness.spec import Experiment


def keep_spec(folder: Path, experiment: Experiment) -> None:
    """Write the experiment and the names of its plugin files.

    Raises:
        StoreError: they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        source = experiment.path
        if source is not None and source.exists():
            write_atomic(folder / "spec.yaml", source.read_bytes())
        elif source is None and experiment.document:  # made in Python: JSON is YAML
            write_atomic(folder / "spec.yaml", json.dumps(experiment.document, indent=2).encode())
        # The copy lies in another folder than its plugins do, and some may have been named on the command line.
        files = json.dumps({"files": [str(file) for file in experiment.plugins]})
        write_atomic(folder / "plugins.json", files.encode())
    except OSError as error:
        raise StoreError(
            f"store: {folder} cannot be written ({error.strerror}); free some space or name another folder "
            "with --store; everything finished is kept"
        ) from None
