"""Code as text that tells what it does and nothing else: without comments, docstrings and layout, and digests of it."""

import ast
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from harness._files import file_sha256
from harness.planning.code_imports import syntax

_SKIPPED = frozenset(("ctx", "type_comment", "kind"))  # of a syntax node: what repeats or only comments it


@cache
def content(path: Path) -> str:
    """A digest of a file: of what its code does, or of its bytes where it is no code that can be read."""
    if path.suffix == ".py":
        # By its syntax tree, so that comments and layout retrain nothing.
        try:
            return normal(syntax(path))
        except (SyntaxError, ValueError):
            pass  # a template, or for another Python: its bytes then
    return file_sha256(path)


def definitions(path: Path, names: Sequence[str]) -> str:
    """A digest of definitions with everything in their module that they use; of the whole module if none is named."""
    tree = syntax(path)
    if not names:
        return normal(tree)
    defined = _defined(tree)
    missing = [name for name in names if name not in defined]
    assert not missing, f"code_digest lists {', '.join(missing)} of {path}, which are not there"
    used: dict[str, str] = {}
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in used:
            used[name] = "".join(normal(node) for node in defined[name])
            owner = name.partition(".")[0]
            inner = {word for statement in defined[name] for word in _used(statement, owner)}
            pending += inner & defined.keys()
    return digest(sorted(used.items()))


def _used(node: ast.AST, owner: str) -> Iterator[str]:
    """The names that a definition uses, `self.name` as one of its class; what only annotates is not used."""
    if isinstance(node, ast.Name):
        yield node.id
    # Only through `self`: what another object's method does is in the digest of whoever defines it.
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        yield f"{owner}.{node.attr}"
    for field, value in ast.iter_fields(node):
        # Annotations decide no number, and those of a worker name half of the harness.
        if field not in ("annotation", "returns"):
            for inner in value if isinstance(value, list) else (value,):
                if isinstance(inner, ast.AST):
                    yield from _used(inner, owner)


def _defined(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """The statements that bind each name at the top of a module, imports included; methods as `Class.name`."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                # One name each: another name imported beside it changes nothing.
                module = statement.module if isinstance(statement, ast.ImportFrom) else None
                level = statement.level if isinstance(statement, ast.ImportFrom) else 0
                bound = (alias.asname or alias.name).partition(".")[0]
                found.setdefault(bound, []).append(ast.ImportFrom(module=module, names=[alias], level=level))
        else:
            for name in _bound(statement):
                found.setdefault(name, []).append(statement)
        if isinstance(statement, ast.ClassDef):
            for inner in statement.body:
                if isinstance(inner, ast.FunctionDef):
                    found.setdefault(f"{statement.name}.{inner.name}", []).append(inner)
    return found


def _bound(statement: ast.stmt) -> Iterable[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    # A constant is bound by any statement that stores its name, `for` and `with` included.
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def normal(node: ast.AST) -> str:
    """A syntax tree as text: nothing of comments, layout and docstrings, and the same in every version of Python."""
    # Written by hand and not by `ast.dump`, whose output changes between versions of Python: keys would with it.
    out: list[str] = []
    _write(node, out.append)
    return hashlib.sha256("".join(out).encode("utf-8", "surrogatepass")).hexdigest()


def _write(node: ast.AST, out: Callable[[str], None]) -> None:
    kind = type(node)
    if kind is ast.Constant:
        out(repr(node.value))  # type: ignore[attr-defined]  # it is a constant
        return
    out(f"{kind.__name__}(")
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            value = [inner for inner in value if not _is_remark(inner)]
        # What is empty is left out: later versions of Python have more fields, empty for the same source.
        if value is None or name in _SKIPPED or value == []:
            continue
        if isinstance(value, ast.AST):
            out(f"{name}=")
            _write(value, out)
        elif isinstance(value, list):
            out(f"{name}=[")
            for inner in value:
                if isinstance(inner, ast.AST):
                    _write(inner, out)
                else:
                    out(repr(inner))
                out(",")
        else:
            out(f"{name}={value!r};")
    out(")")


def _is_remark(node: object) -> bool:
    """A text standing alone: a docstring, or one of a constant."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def digest(pieces: Iterable[tuple[str, str]]) -> str:
    """Sixteen digits for pieces of code by name, in the order given."""
    hasher = hashlib.sha256()
    for name, content in pieces:
        # The name too: the same text moved to another module is other code.
        hasher.update(f"{name} {content}\n".encode())
    return hasher.hexdigest()[:16]
