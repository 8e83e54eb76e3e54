"""What docs/security.md says of the code as a whole."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("lichen", "models", "pipeline", "jobs")
BETWEEN_PROCESSES = {"pipeline/engine/process.py", "models/snapped/importing.py"}
"""They name pickle's error: of a socket to a process of our own, and of what torch refuses to load."""
CODE_LOADERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "yaml"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path, tree in trees():
        yield from ((path, node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def trees() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def test_nothing_from_a_file_is_unpickled() -> None:
    importers = {
        path
        for path, tree in trees()
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.partition(".")[0] in CODE_LOADERS
    }  # fmt: skip
    assert importers == BETWEEN_PROCESSES
    assert not [path for path, call in calls() for word in call.keywords if word.arg == "allow_pickle"]
    unsafe = [
        path
        for path, call in calls()
        if ast.unparse(call.func) == "torch.load"
        and not any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords)
    ]
    assert not unsafe
    uses = [
        (path, ast.unparse(call.func)) for path, call in calls()
        if ast.unparse(call.func) in ("pickle.load", "pickle.loads", "pickle.Unpickler")
    ]  # fmt: skip
    assert not uses


def test_nothing_is_evaluated() -> None:
    evaluated = [
        (path, call.func.id) for path, call in calls()
        if isinstance(call.func, ast.Name) and call.func.id in ("eval", "exec", "compile", "__import__")
    ]  # fmt: skip
    assert not evaluated
    shells = [path for path, call in calls() for word in call.keywords if word.arg == "shell"]
    assert not shells
