"""Counts what imports what in a package: the rooms, the arrows between them, the floors, and the circles.

A room is a module at the top of a package, or one of its sub-packages with all that is in it. An arrow leads from a
room to another that it imports from, once, wherever the import stands: in a function, too, and for types only. Floors
are the rooms of the longest chain of imports. A circle is one of modules, or of rooms; the command then fails.

    python tests/imports.py models pipeline
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
Graph = Mapping[str, set[str]]


def modules(package: str) -> Graph:
    """Every module of a package by its dotted name, with those of the same package that it imports."""
    paths = {path.relative_to(ROOT).with_suffix(""): path for path in (ROOT / package).rglob("*.py")}
    names = {".".join(path.parts).removesuffix(".__init__"): file for path, file in paths.items()}
    graph: dict[str, set[str]] = {}
    for name, file in names.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        own = {one.removeprefix("lichen.") for one in found} & set(names)
        parents = {one.rpartition(".")[0] for one in own}  # `from package import module` means the module
        graph[name] = own - parents - {name}
    return graph


def rooms(graph: Graph) -> Graph:
    """The same between rooms."""
    found: dict[str, set[str]] = {}
    for name, imported in graph.items():
        if "." in name:
            found.setdefault(_room(name), set()).update(map(_room, imported))
    return {room: others - {room} for room, others in found.items()}


def arrows(graph: Graph) -> int:
    """How many there are."""
    return sum(map(len, graph.values()))


def floors(graph: Graph) -> int:
    """Rooms of the longest chain. Raises ``CycleError`` where there is a circle."""
    TopologicalSorter(graph).prepare()

    @cache
    def height(room: str) -> int:
        return 1 + max((height(other) for other in graph[room]), default=0)

    return max(map(height, graph))


def _room(name: str) -> str:
    return ".".join(name.split(".")[:2])


if __name__ == "__main__":
    circles = []
    for package in sys.argv[1:]:
        inner = modules(package)
        outer = rooms(inner)
        try:
            TopologicalSorter(inner).prepare()
            height = f"{floors(outer)} floors"
        except CycleError as error:
            circles.append(package)
            height = f"a circle: {' -> '.join(error.args[1])}"
        print(f"{package}: {len(inner)} modules in {len(outer)} rooms, {arrows(outer)} arrows between rooms, {height}")
    sys.exit(len(circles))
