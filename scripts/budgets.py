"""Count what the house style limits: lengths of functions and files, and the places that catch every exception.

Exits 1 and names each offender when a limit is passed. Exceptions to a limit stand here, by name, with their reason.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parent.parent

MEDIAN_LINES = 10
P90_LINES = 35
FUNCTION_LINES = 60
FILE_LINES = 400

BROAD_EXCEPT_PLACES = {
    "src/pensieve/cli/chat/repl.py:Repl._attempt": "chat top: one failed answer does not end the chat",
    "src/pensieve/inference/mlx/engine.py:Engine._attempt": "engine loop: a failed sequence does not end the others",
    "src/pensieve/server/middleware.py:ErrorResponses.__call__": "server top: no traceback reaches a client",
}
"""`path:function` -> why it may catch everything. Three at most."""

LENGTH_EXCEPTIONS: dict[str, str] = {}
"""`path` or `path:function` -> why it may be longer."""


class Function(NamedTuple):
    """One function: `path:qualified name`, and its length with signature and docstring."""

    place: str
    num_lines: int


class Module(NamedTuple):
    """One file and what was counted in it."""

    path: str
    num_lines: int
    functions: tuple[Function, ...]
    broad_excepts: tuple[str, ...]


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether the handler catches everything and keeps it; one that ends in a bare `raise` only cleans up."""
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"} for kind in kinds)


def walk(node: ast.AST, place: str) -> Iterator[tuple[str, ast.AST]]:
    """Every node below, with the qualified name of the definition it stands in."""
    for child in ast.iter_child_nodes(node):
        inside = place
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{place}.{child.name}".lstrip(".")
        yield inside, child
        yield from walk(child, inside)


def count(path: str, source: str) -> Module:
    """Count one file."""
    functions, broad = [], []
    for place, node in walk(ast.parse(source), ""):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            functions.append(Function(f"{path}:{place}", node.end_lineno - node.lineno + 1))
        elif isinstance(node, ast.ExceptHandler) and is_broad(node):
            broad.append(f"{path}:{place}")
    return Module(path, len(source.splitlines()), tuple(functions), tuple(broad))


def count_tree(root: Path, folders: tuple[str, ...]) -> list[Module]:
    """Count every Python file under these folders of `root`."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    return [count(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def percentile(lengths: list[int], fraction: float) -> int:
    """The length that `fraction` of the functions do not pass."""
    return sorted(lengths)[min(int(len(lengths) * fraction), len(lengths) - 1)] if lengths else 0


def long_functions(modules: list[Module]) -> list[str]:
    """Functions over the limit that are not excepted."""
    functions = (function for module in modules for function in module.functions)
    return [
        f"{place}: {num_lines} lines, at most {FUNCTION_LINES}"
        for place, num_lines in functions
        if num_lines > FUNCTION_LINES and place not in LENGTH_EXCEPTIONS
    ]


def offenders(source: list[Module], others: list[Module]) -> list[str]:
    """Every limit that is passed, one sentence each; tests, benchmarks and scripts keep function lengths only."""
    lengths = [function.num_lines for module in source for function in module.functions]
    median, p90 = percentile(lengths, 0.5), percentile(lengths, 0.9)
    found = long_functions(source) + long_functions(others)
    if median > MEDIAN_LINES:
        found.append(f"src: the median function has {median} lines, at most {MEDIAN_LINES}")
    if p90 > P90_LINES:
        found.append(f"src: one function in ten is longer than {p90 - 1} lines, at most {P90_LINES}")
    found += [
        f"{module.path}: {module.num_lines} lines, at most {FILE_LINES}"
        for module in source
        if module.num_lines > FILE_LINES and module.path not in LENGTH_EXCEPTIONS
    ]
    broad = [place for module in source for place in module.broad_excepts]
    found += [f"{place}: catches every exception" for place in broad if place not in BROAD_EXCEPT_PLACES]
    return found


def summary(modules: list[Module]) -> str:
    """The numbers in one line."""
    lengths = [function.num_lines for module in modules for function in module.functions]
    broad = sum(len(module.broad_excepts) for module in modules)
    return (
        f"{len(modules)} files, longest {max((module.num_lines for module in modules), default=0)} lines; "
        f"{len(lengths)} functions, median {percentile(lengths, 0.5)}, p90 {percentile(lengths, 0.9)}, "
        f"longest {max(lengths, default=0)} lines; {broad} broad excepts"
    )


def main(root: Path = REPOSITORY) -> int:
    """Print the numbers, then the offenders; 0 when there are none."""
    source = count_tree(root, ("src",))
    others = count_tree(root, ("tests", "benchmarks", "scripts"))
    print(f"src: {summary(source)}")
    print(f"tests, benchmarks, scripts: {summary(others)}")
    found = offenders(source, others)
    for offender in found:
        print(f"over budget: {offender}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
