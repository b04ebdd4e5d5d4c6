"""Which patterns a study tells apart, whether that depends on the strategy, and what may be concluded from it."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness._text import listed, plural
from harness.report import formats, page
from harness.report.page import Column, Section
from harness.report.rows import Row, Table
from harness.results.statistics import (
    ALPHA,
    Interaction,
    Standing,
    compare,
    holm,
    interaction,
    seeds_to_settle,
    standings,
    verdicts,
)

_POWER = 0.8

_MOST_NAMED = 6
"""Open verdicts and turned pairs that are named one by one."""


class _Place(NamedTuple):
    """What patterns that are ranked together have in common."""

    backend: str
    allocation: str
    level: float


@dataclass(frozen=True)
class _Ranked:
    """One pattern among those of its strategy and sparsity."""

    row: Row
    standing: Standing
    of: int


def ranking(table: Table, margin: float | None, doubts: Sequence[str] = ()) -> list[Section]:
    """Ranks as intervals, the interaction of pattern and strategy, and a recommendation; none where one pattern ran.

    Args:
        table: the rows of a task.
        margin: of equivalence, in the unit of the metric, or None.
        doubts: codes of checks for which nothing is recommended.
    """
    groups = _groups(table)
    ranked = list(_ranked(table, groups, margin))
    if not ranked:
        return []
    columns: list[Column[_Ranked]] = [
        Column("backend", lambda each: each.row.setting.backend, kind="label", matters="key",
               when=lambda rows: len({each.row.setting.backend for each in rows}) > 1),
        Column("allocation", lambda each: each.row.setting.allocation, kind="label", matters="key",
               when=lambda rows: len({each.row.setting.allocation for each in rows}) > 1),
        Column("strategy", lambda each: each.row.setting.strategy, kind="label", matters="key"),
        Column("asked\n%", lambda each: formats.asked(each.row.setting.target_sparsity), matters="key"),
        Column("pattern", lambda each: each.row.setting.pattern, kind="label", matters="key"),
        Column(table.metric, lambda each: f"{each.row.value.mean:.{table.digits}f}" if each.row.value else ""),
        Column("rank", lambda each: formats.spread(each.standing.first, each.standing.last)),
        Column("of", lambda each: str(each.of), matters="extra"),
        Column("group", lambda each: each.standing.letters, kind="label"),
    ]  # fmt: skip
    caption = (
        f"Rank 1 has the best {table.metric}; a range is what the evidence allows. Patterns that share a letter are "
        f"not told apart: paired t-tests over all pairs of a strategy and sparsity, Holm-corrected, p below {ALPHA:.2g}"
        + ("." if margin is None else f", a difference within {margin:g} counting as none (TOST)."),
    )  # fmt: skip
    told = [*_interactions(table, groups, margin), *_open(table, margin), _recommendation(table, margin, doubts)]
    grid = page.table(columns, ranked, caption=caption)
    return [Section(f"Ranking of patterns: {table.task}", tuple(line for line in told if line), grid)]


# --- ranks ----------------------------------------------------------------------------------------------------------

_Groups = dict[_Place, dict[str, dict[str, Row]]]
"""By place, strategy and pattern."""


def _groups(table: Table) -> _Groups:
    groups: _Groups = {}
    for row in table.rows:
        setting = row.setting
        # An interval needs two seeds; without one there is no rank.
        if not setting.is_dense and len(row.values) > 1:
            place = _Place(setting.backend, setting.allocation, setting.target_sparsity)
            groups.setdefault(place, {}).setdefault(setting.strategy, {})[setting.pattern] = row
    return groups


def _ranked(table: Table, groups: _Groups, margin: float | None) -> Iterator[_Ranked]:
    order = list(dict.fromkeys(row.setting.strategy for row in table.rows))
    for strategy in order:
        for by_strategy in (groups[place] for place in sorted(groups, key=lambda each: (each[:2], each.level))):
            rows = by_strategy.get(strategy, {})
            if len(rows) < 2:
                continue
            found = standings({pattern: row.values for pattern, row in rows.items()}, table.better, margin)
            for pattern, standing in found.items():
                yield _Ranked(rows[pattern], standing, len(rows))


# --- does the ranking depend on the strategy? -----------------------------------------------------------------------


def _interactions(table: Table, groups: _Groups, margin: float | None) -> Iterator[str]:
    """One sentence per place where two strategies or more have two patterns or more in common."""
    found: dict[_Place, Interaction] = {}
    for place, strategies in groups.items():
        # On the cells that all strategies and patterns of a place share: the test is of a full table.
        tested = interaction({s: {p: row.values for p, row in rows.items()} for s, rows in strategies.items()})
        if tested is not None:
            found[place] = tested
    corrected = holm({place: tested.p for place, tested in found.items()})
    for place, tested in found.items():
        if corrected[place] > ALPHA:
            told = "no evidence that the differences between patterns depend on the strategy"
        else:
            turned = _turned(table, groups[place], margin)
            told = "the differences between patterns depend on the strategy" + (
                f", and the ranking with them: {'; '.join(turned)}" if turned
                else ", in size; that the ranking changes is not shown"
            )  # fmt: skip
        p = f"p = {corrected[place]:.2g}, Holm over {len(found)}"
        yield f"{_place_in_words(place, groups)}: {told} ({_test(tested)}, {p})."


def _test(tested: Interaction) -> str:
    if not math.isfinite(tested.f):
        return "no spread over seeds"
    first, second = tested.degrees
    return f"F = {tested.f:.2f} with {first:.1f} and {second:.1f} degrees of freedom"


def _turned(table: Table, strategies: Mapping[str, Mapping[str, Row]], margin: float | None) -> list[str]:
    """Pairs of patterns that one strategy ranks the other way round than another, with evidence for both."""
    comparisons = {}
    for strategy, rows in strategies.items():
        patterns = list(rows)
        for place, one in enumerate(patterns):
            for other in patterns[place + 1 :]:
                compared = compare(rows[one].values, rows[other].values, margin)
                if compared is not None and compared.p_difference is not None:
                    # By pair and not by order: two strategies may list the same two patterns the other way round.
                    comparisons[strategy, frozenset((one, other)), one, other] = compared
    judged = verdicts(comparisons, table.better)
    winners: dict[frozenset[str], dict[str, list[str]]] = {}
    for (strategy, pair, one, other), verdict in judged.items():
        if verdict in ("better", "worse"):
            winner = one if verdict == "better" else other
            winners.setdefault(pair, {}).setdefault(winner, []).append(strategy)
    turned = [by_winner for by_winner in winners.values() if len(by_winner) > 1]
    told = [
        " and ".join(f"{winner} is the better one under {listed(strategies)}" for winner, strategies in each.items())
        for each in turned[:_MOST_NAMED]
    ]
    return told + ([f"{len(turned) - _MOST_NAMED} pairs more"] if len(turned) > _MOST_NAMED else [])


def _place_in_words(place: _Place, groups: Iterable[_Place]) -> str:
    every = list(groups)
    parts = [formats.level(place.level)]
    if len({each.backend for each in every}) > 1:
        parts.append(place.backend)
    if len({each.allocation for each in every}) > 1:
        parts.append(place.allocation)
    return f"At {', '.join(parts)}"


# --- what is open, and what may be concluded ------------------------------------------------------------------------


def _open(table: Table, margin: float | None) -> Iterator[str]:
    """How many seeds would settle the verdicts against the reference pattern that are open."""
    waiting = [
        (row, seeds_to_settle(row.to_reference, margin, table.comparisons, power=_POWER))
        for row in table.rows
        if row.reference_verdict == "not enough evidence" and row.to_reference and row.to_reference.difference.n > 1
    ]
    known = [(row, seeds) for row, seeds in waiting if seeds is not None]
    if known:
        named = [
            f"{s.pattern} under {s.strategy} at {formats.level(s.target_sparsity)}: {seeds}"
            for s, seeds in sorted(((row.setting, seeds) for row, seeds in known), key=lambda each: each[1])[
                :_MOST_NAMED
            ]
        ]
        more = f"; and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
        yield (
            f"Seeds that would settle open verdicts against {table.reference}, if differences and spread stay as they "
            f"are ({100 * _POWER:.0f} % power): {'; '.join(named)}{more}."
        )
    if len(known) < len(waiting):
        yield f"{plural(len(waiting) - len(known), 'open verdict')} no 200 seeds would settle, or too few seeds tell."


def _recommendation(table: Table, margin: float | None, doubts: Sequence[str]) -> str:
    """Up to which sparsity a pattern costs nothing, with all conditions; empty without evidence."""
    if margin is None:
        return ""
    by_line: dict[tuple[str, ...], list[Row]] = {}
    for row in table.rows:
        setting = row.setting
        # A target that no sparsity reaches stands at no sparsity: nothing is tried there.
        if setting.is_pruned and setting.pattern != table.reference:
            by_line.setdefault((setting.backend, setting.allocation, setting.strategy, setting.pattern), []).append(row)
    told, seeds = [], []
    for (*_, strategy, pattern), rows in by_line.items():
        proven = _proven(sorted(rows, key=lambda row: row.setting.target_sparsity))
        if proven:
            # Those that were compared: others may have more, and prove nothing here.
            seeds += [row.to_reference.difference.n for row in proven if row.to_reference is not None]
            top = proven[-1]
            found = sorted({str(row.reference_verdict) for row in proven})
            told.append(
                f"under {strategy} {pattern} up to {formats.level(top.setting.target_sparsity)} "
                f"({' or '.join(found)} at every sparsity tried)"
            )
    if not told:
        return ""
    if doubts:
        # Verdicts are not taken back; a recommendation is not built on a run with errors.
        return f"No recommendation, though there are verdicts to rest one on: {listed(doubts)} (see the checks)."
    fewest = f"{min(seeds)} to " if min(seeds) < max(seeds) else ""
    return (
        f"Recommendation: in place of {table.reference}, {'; '.join(told)}. It holds for {table.task}, pruned in "
        f"{listed(table.scope) or 'all'}, {fewest}{plural(max(seeds), 'seed')} and an equivalence margin of {margin:g}"
        f"{f' {table.unit}' if table.unit else ''}; what it gains on hardware is modelled, see the results."
    )


def _proven(rows: Sequence[Row]) -> list[Row]:
    """The rows from the lowest sparsity on that are better than the reference or equivalent, at equal kept weights."""
    found: list[Row] = []
    for row in rows:
        compared = row.to_reference
        if row.reference_verdict not in ("better", "equivalent") or compared is None or compared.difference.n < 2:
            # The first sparsity without evidence ends it: "up to" means every one below.
            break
        if row.uneven_reference:
            break
        found.append(row)
    return found
