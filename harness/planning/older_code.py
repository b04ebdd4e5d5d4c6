"""Stages that older code made: found by everything in their keys but the code, and trusted where the user says so."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from harness.api import JsonValue
from harness.planning.stages import Stage, key_of, work_digest
from harness.planning.stored import stored
from harness.store import Store


class OlderCode:
    """The stages of a store by what they do, whatever code did it. Reads every record of the store once."""

    def __init__(self, store: Store) -> None:
        self._parents: dict[str, str | None] = {}
        works: dict[str, tuple[str, str | None]] = {}
        for found in stored(store):
            self._parents[found.key] = found.parent
            source = found.inputs.get("source")
            works[found.key] = (work_digest(found.kind, found.inputs, with_code=False), str(source) if source else None)
        self._keys: dict[str, list[str]] = {}
        self._below: dict[str, int] = {}
        # Children first: a stage counts with all below it only when these are counted.
        for key, bare in reversed(_bare_keys(self._parents, works).items()):
            self._keys.setdefault(bare, []).append(key)
            parent = self._parents[key]
            below = self._below.setdefault(key, 0)
            if parent is not None:
                self._below[parent] = self._below.get(parent, 0) + below + 1

    def find(self, bare: str, parent: str | None, refused: Container[str]) -> str | None:
        """The key of a stage that does the same; of several the one below `parent`, then the one with most below it."""
        # Below the same parent first: a chain of one code is worth more than one pieced together.
        keys = [key for key in self._keys.get(bare, ()) if key not in refused]
        return max(keys, key=lambda key: (self._parents[key] == parent, self._below[key], key), default=None)


def _bare_keys(parents: Mapping[str, str | None], works: Mapping[str, tuple[str, str | None]]) -> dict[str, str]:
    """Keys as they would be if code did not count, parents first; a stage whose chain is not whole has none."""
    bare: dict[str, str | None] = {}
    for last in parents:
        pending = [last]
        while pending:  # not by recursion: a chain may be longer than Python's stack
            key = pending[-1]
            work, source = works[key]
            above = [each for each in (parents[key], source) if each is not None]
            missing = [each for each in above if each in works and each not in bare]
            # A store's files may name each other in a circle: a chain longer than all stages is one, and gets no key.
            if missing and len(pending) <= len(works):
                pending += missing
                continue
            found = {each: bare.get(each) for each in above}
            whole = all(found.values())
            bare[key] = key_of(work, found.get(parents[key] or ""), found.get(source or "")) if whole else None
            pending.pop()
    return {key: value for key, value in bare.items() if value is not None}


@dataclass(frozen=True)
class TrustedStages:
    """The stages of a plan, with stages of older code in the place of those that are not there.

    Args:
        stages: what takes the place of each stage, by its strict key and in the same order.
        trusted: keys of the stages that older code made.
    """

    stages: Mapping[str, Stage]
    trusted: frozenset[str]

    @classmethod
    def of(
        cls, stages: Mapping[str, Stage], present: Container[str], older: OlderCode, refused: Container[str]
    ) -> "TrustedStages":
        """Replace what can be replaced.

        A stage that runs on top of an older one says in its inputs by which code: its key is neither that of a chain
        which the older code would have made, nor that of one which the present code made alone.

        Args:
            stages: of a plan, every parent before its children.
            present: keys of the stages that are in the store.
            older: the store's stages by what they do.
            refused: keys of older stages that cannot be used, their states being gone or damaged.
        """
        found: dict[str, Stage] = {}
        trusted: set[str] = set()
        bare: dict[str, str] = {}
        codes: dict[str, Mapping[str, JsonValue]] = {}
        for key, stage in stages.items():
            parent, source = (found[above].key if above else None for above in (stage.parent, stage.source))
            # Without code on both sides: that is what makes the two comparable.
            work = work_digest(stage.kind, stage.inputs, with_code=False)
            bare[key] = key_of(work, bare.get(stage.parent or ""), bare.get(stage.source or ""))
            code = stage.inputs.get("code")
            above = codes.get(stage.parent or "", {})
            # Children name the code of all that led to them: their own inputs hold only what is new with them.
            codes[key] = {**above, **code} if isinstance(code, dict) else above
            own = stage
            if (parent, source) != (stage.parent, stage.source):
                # A child of a replaced stage gets a key of its own, in which the code that really made its parents is
                # told apart.
                inputs = {**stage.inputs, "code": dict(codes[key])} | ({"source": source} if source else {})
                own_key = key_of(work_digest(stage.kind, inputs), parent, source)
                own = replace(stage, key=own_key, parent=parent, source=source, inputs=inputs)
            old = None if own.key in present else older.find(bare[key], parent, refused)
            if old is not None:
                trusted.add(old)
                own = replace(own, key=old)
            found[key] = own
        return cls(found, frozenset(trusted))
