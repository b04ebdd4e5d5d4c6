"""From a mask update to checked masks of the whole scope: scores, allocation, pattern, and the contract's demands."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness._text import listed
from harness._words import suggestion
from harness.api import (
    Mask,
    MaskUpdate,
    Matrix,
    Need,
    NonFiniteError,
    Pattern,
    PluginContractError,
    Score,
    ScoreInput,
    Session,
    Solver,
    SpecError,
    Tensor,
    WholeScopePattern,
)
from harness.api.score import WORDS
from harness.discovery.asking import asked
from harness.discovery.guard import calling, refused
from harness.masks.allocation import erk_shares, lamp_shares
from harness.masks.coupling import Coupling

Allocation = Literal["uniform", "global", "erk", "lamp"] | Mapping[str, float]
"""How a sparsity is shared out: the same for every tensor, wherever the scores are lowest, by a rule of shapes or of
scores, or as written per tensor."""

TOLERANCE = 0.02
"""How far the reachable sparsity may lie from the target before a cell is skipped."""


class MaskMaker:
    """Turns a mask update into the masks of a scope; callable as `harness.api.Masker`."""

    def __init__(
        self,
        pattern: Pattern,
        allocation: Allocation,
        scope: Sequence[Tensor],
        seed: int,
        *,
        target: float | None = None,
        initial_weights: Callable[[], Mapping[str, Matrix]] = dict,
    ) -> None:
        """Fix everything but the update.

        Args:
            pattern: which weights are compared with which.
            allocation: how the sparsity is shared out among the tensors.
            scope: the tensors that are pruned, in order.
            seed: the cell's seed, for scores that draw random numbers.
            target: the cell's final sparsity; a per-tensor allocation needs it, its shares growing with the schedule.
            initial_weights: the weights before any training, for scores that need them.

        Raises:
            SpecError: the allocation does not fit the scope, or the pattern cannot be allocated globally.
        """
        self.pattern = pattern
        self.allocation = allocation
        self.scope = tuple(scope)
        self.seed = seed
        self.target = target
        self.initial_weights = initial_weights
        # The kernel's own selection answers alike every time; anybody else's code is asked.
        self._is_known = type(pattern).mask is Pattern.mask and not isinstance(pattern, WholeScopePattern)
        check_allocation(allocation, scope)
        if not isinstance(allocation, str) and not target:
            raise SpecError(
                f"a per-tensor allocation needs the cell's target sparsity, got {target}; pass `target` above 0"
            )
        if allocation in ("global", "lamp") and (reason := _why_not_spanning(pattern, allocation)):
            raise SpecError(reason)

    def __call__(self, update: MaskUpdate, epoch: int, session: Session) -> dict[str, Mask]:
        """The new masks of every tensor in the scope.

        Args:
            update: sparsity and score, and the step within the epoch.
            epoch: epochs trained before this one in the chain.
            session: gives weights, present masks and, where the score needs them, gradients.

        Raises:
            NonFiniteError: a weight, gradient or score is NaN or infinite; the tensor is named.
            PluginContractError: the score or the pattern answered something its contract forbids.
        """
        # Asked before the scores: a score may look at the masks, and pruned weights rank below all others.
        previous = session.masks()
        given = self._given(update, epoch, session, previous)
        scores = self._scores(update.score, given, previous)
        # After the scores, since some rules share a sparsity out by them.
        sparsities = self._shares(update.sparsity, scores)
        with calling(self.pattern):
            masks = self._asked(scores, sparsities, update.sparsity)
            self._check(masks, sparsities, {} if update.score.revives else previous, update)
        if isinstance(update.score, Solver):
            session.set_masks(masks)
            session.set_weights({name: self._solved(update.score, given[name], masks[name]) for name in masks})
        return masks

    def _solved(self, score: Solver, given: ScoreInput, mask: Mask) -> NDArray[np.float32]:
        assert given.tensor is not None
        with calling(score):
            answer = score.solved(given, mask)
        weights = self._checked_scores(answer, score, given.tensor, "weights", "solved")
        return np.where(mask, weights, 0).astype(np.float32)

    def _asked(self, scores: Mapping[str, Matrix], sparsities: Mapping[str, float], sparsity: float) -> dict[str, Mask]:
        """The pattern's masks; a pattern with code of its own is asked twice at its first update."""
        if self._is_known:
            return self._masks(scores, sparsities, sparsity)
        self._is_known = True
        # On copies: a pattern that writes into its scores would otherwise be compared with its own doing.
        first = self._masks({name: values.copy() for name, values in scores.items()}, sparsities, sparsity)
        again = self._masks(scores, sparsities, sparsity)
        for name, mask in first.items():
            if name not in again or not np.array_equal(mask, again[name]):
                raise self._broken(
                    "the same mask for the same scores", f"another one of {name} when it was asked a second time"
                )
        return first

    def _masks(self, scores: Mapping[str, Matrix], sparsities: Mapping[str, float], sparsity: float) -> dict[str, Mask]:
        if isinstance(self.pattern, WholeScopePattern):
            masks: object = self.pattern.masks(scores, sparsities, self.scope)
            if not isinstance(masks, Mapping):
                raise self._broken("a mapping of masks by tensor name", type(masks).__name__)
            return dict(masks)
        if is_coupled(self.pattern, self.scope):
            return Coupling.of(self.scope).masks(scores, sparsity)
        if self.allocation == "global":
            return self._global_masks(scores, sparsity)
        own = {tensor.name: self.pattern.for_tensor(tensor) for tensor in self.scope}
        return {name: own[name].mask(scores[name], sparsities[name]) for name in scores}

    def _shares(self, sparsity: float, scores: Mapping[str, Matrix]) -> dict[str, float]:
        """The sparsity of every tensor when the cell's is `sparsity`."""
        if self.allocation == "erk":
            return erk_shares(self.scope, sparsity)
        if self.allocation == "lamp":
            return lamp_shares(scores, sparsity)
        return {tensor.name: self._share(tensor, sparsity) for tensor in self.scope}

    def _share(self, tensor: Tensor, sparsity: float) -> float:
        """The sparsity of one tensor when the cell's is `sparsity`."""
        if isinstance(self.allocation, str) or tensor.name not in self.allocation:
            return sparsity
        assert self.target
        share = self.allocation[tensor.name]
        if sparsity > self.target:  # on the way to a regrowth: towards 1 together with the cell's sparsity
            return share + (1 - share) * (sparsity - self.target) / (1 - self.target)
        # Exactly the written share at the end: a quotient of equal floats is 1.
        return share * (sparsity / self.target)

    def _given(
        self, update: MaskUpdate, epoch: int, session: Session, previous: Mapping[str, Mask]
    ) -> dict[str, ScoreInput]:
        """What the score may look at, by tensor name, all of it finite."""
        weights, needed = session.weights(), self._needed(update.score, epoch, session)
        found = {}
        for index, tensor in enumerate(self.scope):
            name = tensor.name
            _require_finite(weights[name], name, "weights")
            mine = {need: _measured(measured, need, update.score, tensor) for need, measured in needed.items()}
            for need, measured in mine.items():
                _require_finite(measured, name, WORDS[need])
            found[name] = ScoreInput(
                weights=weights[name],
                mask=previous.get(name, np.ones(tensor.shape, np.bool_)),
                # A stream for every tensor and update, and 0x5C03E ("SCORE") apart from all other streams of the seed.
                rng=np.random.default_rng([self.seed, epoch, update.step, index, 0x5C03E]),
                needed=mine,
                tensor=tensor,
                sparsity=update.sparsity,
                step=update.step,
                progress=update.progress,
            )
        return found

    def _scores(self, score: Score, given: Mapping[str, ScoreInput], previous: Mapping[str, Mask]) -> dict[str, Matrix]:
        scores = {}
        for tensor in self.scope:
            name = tensor.name
            with calling(score):
                answer = score.scores(given[name])
            scores[name] = self._checked_scores(answer, score, tensor)
            if not score.revives and name in previous:
                scores[name] = np.where(previous[name], scores[name], -np.inf)
        return scores

    def _needed(self, score: Score, epoch: int, session: Session) -> dict[Need, Mapping[str, Matrix]]:
        """What the score needs, by need and tensor name: measured by the backend, or read from the session's state."""
        measurements = asked(score, score.measurements, tuple, "a tuple of measurements", "measurements")
        found: dict[Need, Mapping[str, Matrix]] = {each.what: session.measured(each, epoch) for each in measurements}
        if "momentum" in score.needs:
            slots = session.state().slots
            # SGD calls its mean gradient `momentum`, Adam `m`.
            found["momentum"] = {
                name: slots.get(f"momentum/{name}", slots.get(f"m/{name}", np.zeros(tensor.shape, np.float32)))
                for name, tensor in ((tensor.name, tensor) for tensor in self.scope)
            }
        if "movement" in score.needs:
            extra = session.state().extra
            found["movement"] = {
                tensor.name: np.asarray(extra.get(f"movement/{tensor.name}", np.zeros(tensor.shape)), np.float32)
                for tensor in self.scope
            }
        if "initial_weights" in score.needs:
            found["initial_weights"] = self.initial_weights()
        return found

    def _checked_scores(
        self, scores: object, score: Score, tensor: Tensor, what: str = "scores", method: str = "scores"
    ) -> Matrix:
        wanted = f"floating-point numbers of shape {tensor.shape} for {tensor.name}, one per weight"
        if not isinstance(scores, np.ndarray):
            raise refused(score, wanted, type(scores).__name__, method)
        if scores.shape != tensor.shape or not np.issubdtype(scores.dtype, np.floating):
            raise refused(score, wanted, f"{scores.dtype} of shape {scores.shape}", method)
        if not np.isfinite(scores).all():
            # What it was given is finite: that was looked at before.
            bad = int(np.count_nonzero(~np.isfinite(scores)))
            raise refused(
                score, f"finite {what} of {tensor.name}, whose weights are finite",
                f"{bad} NaN or infinite of {scores.size}", method,
            )  # fmt: skip
        return scores

    def _global_masks(self, scores: Mapping[str, Matrix], sparsity: float) -> dict[str, Mask]:
        """One selection over all tensors, laid end to end in scope order: ties go to the earlier tensor."""
        everything = np.concatenate([scores[tensor.name].ravel() for tensor in self.scope])
        # One row, so that a pattern which spans tensors sees a single group.
        chosen = self.pattern.mask(everything.reshape(1, -1), sparsity).ravel()
        edges = np.cumsum([tensor.size for tensor in self.scope])[:-1]
        pieces = np.split(chosen, edges)
        return {tensor.name: piece.reshape(tensor.shape) for tensor, piece in zip(self.scope, pieces, strict=True)}

    def _check(
        self,
        masks: Mapping[str, Mask],
        sparsities: Mapping[str, float],
        previous: Mapping[str, Mask],
        update: MaskUpdate,
    ) -> None:
        # Every answer is checked, also of built-in patterns: masks are what all later numbers rest on.
        names = [tensor.name for tensor in self.scope]
        if sorted(masks) != sorted(names):
            raise self._broken(f"a mask for each of {', '.join(names)}", f"masks for {', '.join(masks) or 'none'}")
        for tensor in self.scope:
            self._check_shape(masks[tensor.name], tensor)
            if tensor.name in previous:
                self._check_subset(masks[tensor.name], previous[tensor.name], tensor, update)
        if is_coupled(self.pattern, self.scope):
            coupling = Coupling.of(self.scope)
            self._check_total(masks, coupling.reached(coupling.quotas(update.sparsity)))
        elif isinstance(self.pattern, WholeScopePattern) or self.allocation == "global":
            sizes = [tensor.size for tensor in self.scope]
            shares = [sparsities[tensor.name] for tensor in self.scope]
            self._check_total(masks, float(np.average(shares, weights=sizes)))
        else:
            for tensor in self.scope:
                self._check_count(masks[tensor.name], tensor, sparsities[tensor.name])

    def _check_shape(self, mask: Mask, tensor: Tensor) -> None:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != tensor.shape:
            got = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise self._broken(f"a bool mask of shape {tensor.shape} for {tensor.name}", got)

    def _check_subset(self, mask: Mask, previous: Mask, tensor: Tensor, update: MaskUpdate) -> None:
        revived = int(np.count_nonzero(mask & ~previous))
        if revived:
            before = 1 - np.count_nonzero(previous) / previous.size
            raise self._broken(
                f"no pruned weight of {tensor.name} to come back at sparsity {update.sparsity:g} under the score "
                f"{update.score.name!r}, which does not revive",
                f"{revived} revived weights where {before:g} was pruned before",
            )

    def _check_count(self, mask: Mask, tensor: Tensor, sparsity: float) -> None:
        kept = int(np.count_nonzero(mask))
        rows, cols = mask.shape
        pattern = self.pattern.for_tensor(tensor)
        expected = tensor.size * (1 - _reachable(pattern, tensor, sparsity))
        # Edge units that are smaller count as units: how many weights stay then varies with the choice.
        if abs(kept - expected) > max(0.5, pattern.layout(rows, cols).edge_deficit):
            raise self._broken(
                f"{round(expected)} of the {tensor.size} weights of {tensor.name} kept at sparsity {sparsity:g}",
                f"{kept}",
            )

    def _check_total(self, masks: Mapping[str, Mask], asked: float) -> None:
        total = sum(tensor.size for tensor in self.scope)
        found = 1 - sum(int(np.count_nonzero(mask)) for mask in masks.values()) / total
        # A ranking over all keeps a whole number of weights: half of one off is exact.
        slack = TOLERANCE if isinstance(self.pattern, WholeScopePattern) else 0.5 / total + 1e-12
        # A whole-scope pattern rounds in every tensor: the whole may be off by what a cell may be off.
        if abs(found - asked) > slack:
            raise self._broken(f"sparsity {asked:g} over the scope", f"{found:g}")

    def _broken(self, expected: str, got: str) -> PluginContractError:
        method = "masks" if isinstance(self.pattern, WholeScopePattern) else "mask"
        return refused(self.pattern, expected, got, method)


def check_allocation(allocation: Allocation, scope: Sequence[Tensor]) -> None:
    """Refuse a per-tensor allocation that does not fit the scope; tensors it leaves out get the cell's sparsity.

    Raises:
        SpecError: it names a tensor outside the scope, or a sparsity outside [0, 1).
    """
    if isinstance(allocation, str):
        return
    names = [tensor.name for tensor in scope]
    for name, sparsity in allocation.items():
        if name not in names:
            hint = suggestion(name, names) or ";"
            raise SpecError(f"allocation: {name!r} is no tensor of the scope{hint} the scope holds {listed(names)}")
        if not 0 <= sparsity < 1:
            raise SpecError(f"allocation: the sparsity of {name} must lie in [0, 1), got {sparsity}; write 90 % as 0.9")


def is_coupled(pattern: Pattern, scope: Sequence[Tensor]) -> bool:
    """Whether a pattern's units span the tensors of the scope."""
    rows, cols = scope[0].shape
    return pattern.frame(rows, cols).coupling == "labels"


def _why_not_spanning(pattern: Pattern, allocation: Allocation) -> str | None:
    if pattern.spans_tensors or isinstance(pattern, WholeScopePattern):
        return None
    return (
        f"{pattern.label()} fills the groups of each tensor equally, so no sparsity is left to share out under "
        f"allocation '{allocation}'; use 'uniform'"
    )


def _reachable(pattern: Pattern, tensor: Tensor, sparsity: float) -> float:
    """What a pattern says it can reach; every comparison with a NaN would let it pass."""
    rows, cols = tensor.shape
    reached: object = pattern.reachable(rows, cols, sparsity)
    if not isinstance(reached, int | float) or not 0 <= reached <= 1:
        raise refused(pattern, "a sparsity between 0 and 1", repr(reached)[:80], "reachable")
    return float(reached)


def _require_finite(values: Matrix | NDArray[np.floating], tensor: str, what: str) -> None:
    if np.isfinite(values).all():
        return
    row, col = (int(index) for index in np.argwhere(~np.isfinite(values))[0])
    count = values.size - int(np.count_nonzero(np.isfinite(values)))
    raise NonFiniteError(
        f"masks need finite {what}, got {count} NaN or infinite in {tensor}, the first {values[row, col]} at row "
        f"{row}, column {col}; lower the learning rate or clip the gradients"
    )


def _measured(measured: Mapping[str, Matrix], need: Need, score: Score, tensor: Tensor) -> Matrix:
    """What was measured of one tensor."""
    if tensor.name not in measured:
        raise PluginContractError(
            f"the score {score.label()} needs {WORDS[need]}, of which there are none for {tensor.name} "
            f"({tensor.role}); leave it out of the scope, or take another score"
        )
    return measured[tensor.name]
