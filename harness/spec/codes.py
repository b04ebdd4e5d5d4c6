"""The codes of named checks that an experiment silences: one that no check has would silence nothing, unnoticed."""

from harness._words import suggestion
from harness.api import JsonValue
from harness.discovery.registry import Registry
from harness.spec.source import Path, Problems, got


def refuse_unknown_codes(given: JsonValue, registry: Registry, problems: Problems) -> None:
    """Note every code of `ignore` that is no check's, neither the harness's nor a plugin's.

    Args:
        given: what the file has, of whatever type; what is no text is told elsewhere.
        registry: the plugins, those of the file's own among them.
        problems: where mistakes are noted.
    """
    every: list[tuple[Path, JsonValue]] = [(("ignore",), given)]
    if isinstance(given, list):
        every = [(("ignore", place), code) for place, code in enumerate(given)]
    told = [(path, code) for path, code in every if isinstance(code, str)]
    if not told:
        return
    known = known_codes(registry)
    # A check that cannot be loaded has told nobody its code: what is not ours may be its.
    is_open = any(row.kind in ("check", None) and row.component is None for row in registry.rows)
    for path, code in told:
        if code not in known and not (is_open and not code.upper().startswith("SPN")):
            where = "; docs/checks.md has those of the harness, `harness plugins list checks` what plugins add"
            problems.add(path, f"expected the code of a check, got {got(code)}{suggestion(code, known) or where}")


def known_codes(registry: Registry) -> list[str]:
    """Every code there is: the harness's, then those of plugins."""
    # Here, since the checks bring all tables along, and few experiments silence any.
    from harness.report.checks import CHECKS

    added = [getattr(registry.get("check", name), "code", None) for name in registry.names("check")]
    return [*sorted(check.code for check in CHECKS), *(code for code in added if isinstance(code, str))]
