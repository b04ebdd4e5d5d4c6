"""From finished stages to records: what a cell measured, how sparse it is, what it costs on hardware."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version

from harness import DISTRIBUTION
from harness.api import (
    Backend,
    Evaluation,
    HardwareModel,
    JsonValue,
    Mask,
    Metric,
    PluginContractError,
    Problem,
    Task,
    Workload,
)
from harness.discovery.asking import effective, group_of, number_format_of, value_of, versions_of
from harness.execution.costs import CostRecord, Costs, needs_weights, with_weights, workload_digest
from harness.execution.counting import without_a_model
from harness.execution.progress import Costing
from harness.masks.outcome import achieved, why_missed
from harness.planning.lowering import PlannedCell
from harness.planning.plan import Plan
from harness.planning.stages import digest
from harness.planning.workloads import workload_of
from harness.results.records import BEYOND, NOT_COSTED, Record, Status, Stored
from harness.spec import Cell, Solved
from harness.store import MASKS, StageRecord

_TRAINED_BITS = 32
"""Bits of a weight as frameworks train it: what is stored where no hardware entry says in which numbers it computes."""

_NO_METRIC = Metric(name="", better="lower")
"""Of a task whose code did not even say that."""


@dataclass
class Collector:
    """Makes the records of a plan; equal masks are costed once.

    Args:
        plan: what was planned.
        finished: the records of all stages that are there, the cached ones included.
        ran: keys of the stages that this run really ran.
        failures: status and reason of failed stages, by key.
    """

    plan: Plan
    finished: dict[str, StageRecord]
    ran: set[str] = field(default_factory=set)
    failures: dict[str, tuple[Status, str]] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Start with nothing costed."""
        self._costs = Costs(self.plan.store)
        self._until: float | None = None
        self._networks: dict[Task, str] = {}
        self._leasts: dict[Task, dict[str, JsonValue]] = {}
        self._complete: dict[str, Record] = {}
        self._uncosted: set[str] = set()
        self._counted: set[str] = set()
        self._versions: dict[Backend, dict[str, str]] = {}
        self._arithmetics: dict[Backend, str] = {}
        self._several_seeds = len({planned.cell.seed for planned in self.plan.cells}) > 1
        self._owners: dict[str, PlannedCell] = {}
        for planned in self.plan.cells:
            for stage in planned.stages:
                self._owners.setdefault(stage.key, planned)

    def owner(self, key: str) -> PlannedCell:
        """The first cell that needs a stage: a shared stage is run, and fails, in its name."""
        return self._owners[key]

    def label(self, key: str) -> str:
        """A stage in words, after the first cell that needs it."""
        planned, stage = self._owners[key], self.plan.stages[key]
        parts = self._words(planned, is_dense=stage.is_dense)
        place = f"epoch {stage.epoch_index + 1}" if stage.kind == "train" else stage.kind
        place += f" as {stage.number_format.label()}" if stage.number_format else ""
        return " · ".join([*parts, place])

    def _words(self, planned: PlannedCell, *, is_dense: bool) -> list[str]:
        """A cell in words, or the dense training that it begins with."""
        names = planned.cell.labels()
        parts = [names["backend"]]
        if is_dense:
            parts.append("dense")
        else:
            parts += [names["pattern"], names["strategy"], f"{planned.cell.sparsity:g}"]
        # Seeds tell stages apart only where there are several.
        return [*parts, f"seed {planned.cell.seed}"] if self._several_seeds else parts

    def records(self, within: float | None = None) -> list[Record]:
        """One record for every planned cell, as things stand.

        Args:
            within: seconds that may go into new hardware costs: the run waits meanwhile. What is not costed then says
                so; None costs everything.
        """
        self._until = None if within is None else time.monotonic() + within
        return [self.record(planned) for planned in self.plan.cells]

    def to_cost(self, within: float) -> int:
        """How many finished cells still wait for a hardware cost, after so many seconds of costing."""
        self.records(within)
        return len(self._uncosted)

    def cost(self, told: Callable[[Costing], None]) -> None:
        """Cost what is left, and tell of every model before it is asked."""
        self._until = None
        left = [planned for planned in self.plan.cells if planned.cell.id in self._uncosted]
        for place, planned in enumerate(left, start=1):
            label = " · ".join(self._words(planned, is_dense=planned.cell.is_dense))
            self._cost_again(planned, _telling(told, label, len(self.plan.experiment.hardware), place, len(left)))

    def record(self, planned: PlannedCell) -> Record:
        """The record of one cell, as things stand."""
        cell = planned.cell.id
        # What is done does not change any more, but for costs that were left for later.
        if cell in self._complete:
            if cell in self._uncosted and self._may_cost():
                self._cost_again(planned)
            return self._complete[cell]
        base = self.outline(planned)
        # What was known before anything ran does not change while it does.
        if planned.skip is not None or planned.failure is not None:
            return base
        # A score in the numbers of some hardware is a result of its own: without it the cell still has its metric.
        for stage in planned.stages:
            if stage.key in self.failures and stage.number_format is None:
                status, reason = self.failures[stage.key]
                # A shared stage fails once, in the name of its first cell; the others are blocked by it.
                owner = self.owner(stage.key)
                if owner is not planned:
                    reason = f"by {self.label(stage.key)} (cell {owner.cell.id}), which ended as {status}: {reason}"
                    status = "blocked"
                facts = {**base.facts, "failed_stage": stage.key}
                return base.model_copy(update={"status": status, "reason": reason, "facts": facts})
        if all(stage.key in self.finished or stage.key in self.failures for stage in planned.stages):
            try:
                # The task is asked for its metric here, and what it answers may break the contract.
                self._complete[cell] = self._result(planned, base)
            except PluginContractError as error:
                facts = {**base.facts, "failed_stage": planned.end.key}
                failed = {"status": "failed", "reason": str(error), "facts": facts}
                self._complete[cell] = base.model_copy(update=failed)
            return self._complete[cell]
        # A stage that cells share runs in the name of one: all of them as running would look like work done twice.
        is_running = any(stage.key in self.running and self.owner(stage.key) is planned for stage in planned.stages)
        return base.model_copy(update={"status": "running" if is_running else "planned"})

    def _cost_again(self, planned: PlannedCell, told: Callable[[str, int], None] | None = None) -> None:
        """Give a finished cell the costs that were left for later."""
        masks = self.plan.store.masks(self.finished[planned.end.key])
        update = {"hardware": self._hardware(planned, masks, told)}
        self._complete[planned.cell.id] = self._complete[planned.cell.id].model_copy(update=update)

    def outline(self, planned: PlannedCell) -> Record:
        """What is known of a cell before it runs."""
        base = self._base(planned)
        if planned.skip is not None:
            return base.model_copy(update={"status": "skipped", "reason": planned.skip})
        if planned.failure is not None:
            return base.model_copy(update={"status": "failed", "reason": planned.failure})
        return base

    def _base(self, planned: PlannedCell) -> Record:
        cell, plan = planned.cell, self.plan
        experiment, problem = plan.experiment, plan.problems.get(cell.task)
        labels = cell.labels()
        # What a broken plugin cannot tell is left as it is where nothing is known.
        facts = {} if problem is None else dict(problem.facts)
        metric = _NO_METRIC if problem is None else problem.metric
        # A plugin that failed in planning cannot be asked how it computes.
        if not planned.failure and (arithmetic := self.arithmetic(cell)):
            facts["arithmetic"] = arithmetic
        if planned.warning:
            facts["warning"] = planned.warning
        if cell.solved:
            facts["targets"] = [_target(each) for each in cell.solved]
            facts["asked_sparsity"] = cell.is_asked
        best = facts.get("best_perplexity")
        return Record(
            run=experiment.run_id,
            cell=cell.id,
            task=labels["task"],
            backend=labels["backend"],
            pattern=labels["pattern"],
            strategy=labels["strategy"],
            pattern_name=cell.pattern.name if cell.pattern else "",
            strategy_name=cell.strategy.name if cell.strategy else "",
            task_params=effective(cell.task),
            backend_params=effective(cell.backend),
            pattern_params=effective(cell.pattern) if cell.pattern else {},
            strategy_params=effective(cell.strategy) if cell.strategy else {},
            scope=experiment.scope,
            allocation=labels["allocation"],
            target_sparsity=cell.sparsity,
            seed=cell.seed,
            metric=metric.name,
            unit=metric.unit,
            better=metric.better,
            digits=metric.digits,
            best_possible=best if isinstance(best, float) else None,
            total_epochs=planned.total_epochs,
            retrain_epochs=planned.retrain_epochs,
            mask_updates=planned.mask_updates,
            gradual_updates=planned.gradual_updates,
            prunings=planned.prunings,
            start_rate=planned.start_rate,
            retrain_rate=planned.retrain_rate,
            ignore=experiment.ignore,
            rewinds_to=planned.rewinds_to,
            needs_dense_model=bool(cell.strategy and cell.strategy.needs_dense_model),
            hyper_parameters=planned.hyper_parameters,
            device=plan.devices[cell.backend],
            precision=experiment.precision,
            threads=experiment.threads,
            # A cell whose plan failed has no stage to name.
            stage=planned.end.key if planned.chain else "",
            versions={"harness": version(DISTRIBUTION)} if planned.failure else self.versions(cell.backend),
            facts=facts,
        )

    def versions(self, backend: Backend) -> dict[str, str]:
        """Of the harness and of what a backend computes with."""
        if backend not in self._versions:
            self._versions[backend] = {"harness": version(DISTRIBUTION), **versions_of(backend)}
        return self._versions[backend]

    def arithmetic(self, cell: Cell) -> str:
        """How the backend of a cell computes, where processors differ in that; empty otherwise."""
        if cell.backend not in self._arithmetics:
            self._arithmetics[cell.backend] = self.plan.settings(cell).arithmetic
        return self._arithmetics[cell.backend]

    def _result(self, planned: PlannedCell, base: Record) -> Record:
        problem = self.plan.problems[planned.cell.task]
        records = [self.finished[stage.key] for stage in planned.chain]
        trained = [record for record in records if record.kind == "train"]
        pruned = [record for record in records if record.kind == "prune"]
        assert planned.test is not None
        test = self.finished[planned.test.key].test
        density = test.activation_density if test else {}
        masks = self.plan.store.masks(records[-1])
        by_tensor, over_scope, over_model = achieved(masks, problem.tensors())
        if missed := self._why_missed(planned, masks):
            counted = {"sparsity": over_scope, "model_sparsity": over_model, "tensor_sparsity": by_tensor}
            facts = {**base.facts, "failed_stage": planned.end.key}
            return base.model_copy(update={"status": "failed", "reason": missed, "facts": facts, **counted})
        # A shared epoch is counted for the first cell that uses it, so that the counts of all cells add up.
        ran = [record for record in trained if record.key in self.ran and record.key not in self._counted]
        self._counted.update(record.key for record in ran)
        is_new = any(stage.key in self.ran for stage in planned.stages)
        history = tuple(_value(planned.cell.task, problem, record.valid) for record in trained)
        dense = [record for stage, record in zip(planned.chain, records, strict=True) if stage.is_dense]
        facts = dict(base.facts)
        facts["cpu"] = records[-1].cpu
        # None is a first run, which differs from nothing.
        if any(record.reproduced is False for record in records):
            facts["not_reproduced"] = [record.key for record in records if record.reproduced is False]
        overflowed: dict[str, JsonValue] = {
            r.key: _place(r) for r in records if r.valid and _value(planned.cell.task, problem, r.valid) is None
        }
        if overflowed:
            facts["not_finite"] = overflowed
        trusted = self.plan.trusted_by(planned)
        if trusted:
            facts["trusted_code"] = list[JsonValue](trusted)
        # Of the dense model alone: it is what all the others are measured against.
        if planned.cell.is_dense:
            facts |= self._least(planned.cell.task, problem)
        if empty := _empty_rows(masks):
            facts["empty_rows"] = empty
        if density:
            facts["activation_density"] = {layer: round(value, 3) for layer, value in density.items()}
        return base.model_copy(
            update={
                "status": "ok" if is_new else "cached",
                "value": _value(planned.cell.task, problem, test),
                "valid_value": _value(
                    planned.cell.task, problem, next((r.valid for r in reversed(records) if r.valid), None)
                ),
                "valid_history": history,
                "value_before_retraining": _value(planned.cell.task, problem, pruned[-1].valid) if pruned else None,
                "sparsity": over_scope,
                "model_sparsity": over_model,
                "tensor_sparsity": by_tensor,
                "hardware": self._hardware(planned, masks),
                "fixed_point": self._fixed_point(planned),
                "storage": self._storage(planned, masks),
                "trained_epochs": len(ran),
                "train_seconds": round(sum(record.seconds for record in trained), 3),
                "train_processor_seconds": _processor_seconds(trained),
                "dense_digest": dense[-1].digest if dense else None,
                "facts": facts,
            }
        )

    def _least(self, task: Task, problem: Problem) -> dict[str, JsonValue]:
        """What a model reaches that only counts, under the name of the metric."""
        if task not in self._leasts:
            # A missing value is kept as missing: that nothing is known need not be asked twice.
            value = without_a_model(problem)
            known = value is not None
            self._leasts[task] = {f"without_a_model_{problem.metric.name}": round(value or 0.0, 6)} if known else {}
        return self._leasts[task]

    def _fixed_point(self, planned: PlannedCell) -> dict[str, dict[str, JsonValue]]:
        """The metric in the numbers of every hardware entry, by the label that its engines share."""
        by_format = {stage.number_format: stage.key for stage in planned.fixed}
        problem = self.plan.problems[planned.cell.task]
        found: dict[str, dict[str, JsonValue]] = {}
        for model in self.plan.experiment.hardware:
            try:
                number_format = number_format_of(model)
            except PluginContractError:  # which its cost says
                continue
            # Engines of one model share its numbers, so that they have one score.
            group = _group(model)
            if number_format is None or group in found:
                continue
            each: dict[str, JsonValue] = {"format": number_format.label(), **number_format.model_dump(mode="json")}
            key = by_format.get(number_format)
            if key is None:
                each["reason"] = "this cell was planned before its hardware had a number format; run it again"
            elif key in self.failures:
                each["reason"] = self.failures[key][1]
            else:
                test = self.finished[key].test
                value = _value(planned.cell.task, problem, test)
                each |= {"value": value, "wrapped": test.wrapped if test else None, "stage": key}
                if test and test.in_float:
                    each["in_float"] = list(test.in_float)
                if test and test.folded:
                    each["folded"] = dict(test.folded)
            found[group] = each
        return found

    def _why_missed(self, planned: PlannedCell, masks: Mapping[str, Mask]) -> str | None:
        """Why the masks of a finished cell are not those asked for: its metric would stand beside a wrong sparsity."""
        cell = planned.cell
        if cell.pattern is None:
            return None
        tolerance = self.plan.experiment.tolerance
        return why_missed(masks, cell.pattern, cell.allocation, planned.scope, cell.sparsity, tolerance)

    def _may_cost(self) -> bool:
        return self._until is None or time.monotonic() < self._until

    def _hardware(
        self, planned: PlannedCell, masks: Mapping[str, Mask], told: Callable[[str, int], None] | None = None
    ) -> dict[str, CostRecord]:
        models = self.plan.experiment.hardware
        if not models:
            return {}
        workload, identity = self._workload(planned, masks)
        costs: dict[str, CostRecord] = {}
        self._uncosted.discard(planned.cell.id)
        valued: tuple[Workload, str] | None = None
        for number, model in enumerate(models, start=1):
            if told is not None:
                told(model.label(), number)
            asked, place = workload, identity
            if needs_weights(model):
                # Read once for all such models, and only where there is one: states are large.
                network, end = self._networks[planned.cell.task], self.finished[planned.end.key]
                valued = valued or with_weights(workload, network, self.plan.store, end)
                asked, place = valued
            found = self._costs.of(asked, place, model, compute=self._may_cost())
            if found is None:
                self._uncosted.add(planned.cell.id)
                found = {"model": _group(model), "reason": f"{NOT_COSTED}; the run goes on or was interrupted"}
            costs[model.label()] = found
        return costs

    def _workload(self, planned: PlannedCell, masks: Mapping[str, Mask]) -> tuple[Workload, str]:
        """What hardware models are asked about a finished cell, and a digest of it."""
        assert planned.test is not None
        task, end = planned.cell.task, self.finished[planned.end.key]
        problem, test = self.plan.problems[task], self.finished[planned.test.key].test
        workload = workload_of(
            planned.cell.pattern, problem, planned.scope, masks, test.activation_density if test else {}
        )
        # By task: its network is the same for all its cells, and large.
        if task not in self._networks:
            self._networks[task] = digest(problem.network.model_dump(mode="json"))
        # Dense cells of several seeds are one dense model to an engine, unless they skip different zeros.
        return workload, workload_digest(workload, self._networks[task], end.checksums.get(MASKS, "dense"))

    def _storage(self, planned: PlannedCell, masks: Mapping[str, Mask]) -> dict[str, Stored]:
        """Bits of the masks with weights of every width that the experiment's hardware computes with."""
        workload, identity = self._workload(planned, masks)
        widths = self._weight_bits or (_TRAINED_BITS,)
        return {str(bits): self._costs.stored(workload, identity, bits) for bits in widths}

    @cached_property
    def _weight_bits(self) -> tuple[int, ...]:
        """Bits that a weight is stored with, in the numbers of the hardware entries, each width once."""
        found: dict[int, None] = {}
        for model in self.plan.experiment.hardware:
            with suppress(PluginContractError):  # which its cost says
                number_format = number_format_of(model)
                found |= {number_format.stored_bits: None} if number_format else {}
        return tuple(found)


def _telling(
    told: Callable[[Costing], None], label: str, models: int, cell: int, cells: int
) -> Callable[[str, int], None]:
    """What is told of a cell's costs, as one of its models after the other is asked."""
    return lambda model, number: told(Costing(label, model, number, models, cell, cells))


def _processor_seconds(trained: Sequence[StageRecord]) -> float | None:
    """The processor time of all of them; None where one was stored before it was measured."""
    found = [record.processor_seconds for record in trained if record.processor_seconds is not None]
    return round(sum(found), 3) if len(found) == len(trained) else None


def _group(model: HardwareModel) -> str:
    try:
        return group_of(model)
    except PluginContractError:  # which its cost says
        return model.label()


def outlines(plan: Plan) -> list[Record]:
    """The records of a plan before anything of it runs."""
    collector = Collector(plan, {})
    return [collector.outline(planned) for planned in plan.cells]


def _empty_rows(masks: Mapping[str, Mask]) -> dict[str, JsonValue]:
    """The part of a tensor's rows that has no weight left, by name, where there are such rows."""
    parts = {name: 1 - float(mask.any(axis=1).mean()) for name, mask in masks.items() if mask.size}
    return {name: round(part, 6) for name, part in parts.items() if part > 0}


def _target(solved: Solved) -> dict[str, JsonValue]:
    """A target as records tell it; without a reason, the sparsity of the cell reaches it."""
    found: dict[str, JsonValue] = {"target": solved.goal, "value": solved.value, "dense": solved.dense}
    found |= {"engine": solved.engine} if solved.engine else {}
    found |= {} if solved.fits else {"fits": False}
    return found | ({"reason": solved.reason} if solved.reason else {})


def _place(record: StageRecord) -> str:
    return f"epoch {record.epoch_index + 1}" if record.kind == "train" else record.kind


def _value(task: Task, problem: Problem, evaluation: Evaluation | None) -> float | None:
    """The metric; None where there is no evaluation, and where it overflowed."""
    value = math.nan if evaluation is None else value_of(task, problem, evaluation)
    return value if abs(value) <= BEYOND else None
