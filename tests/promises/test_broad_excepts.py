"""`except Exception` stands where a fault of ours must not become a fault of a client, and nowhere else. Each place has its reason."""

import ast
from pathlib import Path

import pytest

from tests.promises.checkout import ROOT, name_of, package_modules

ALLOWED = {
    "aiproxyd/mitm/tap.py": "the tap's boundary: a parser that trips never harms a stream",
    "aiproxyd/mitm/stream.py": "the tap's boundary for one stream: it observes nothing more and the bytes go on",
    "aiproxyd/mitm/connect.py": "the hook boundary: policy and authentication fail closed",
    "aiproxyd/mitm/mitmdump.py": "the hook boundary in plain mitmdump",
    "aiproxyd/mitm/engine.py": "the hook boundary: an exception in a hook refuses",
    "aiproxyd/mitm/safe_handler.py": "the hook and layer boundary: a connection is closed, never left hanging",
    "aiproxyd/mitm/tunnel.py": "the supervisor of one tunnel: both sockets are closed whatever happens",
    "aiproxyd/mitm/turns.py": "the supervisor of one connection among those of a turn: the others go on",
    "aiproxyd/fold.py": "the supervisor of the readers",
    "aiproxyd/reloader.py": "the boundary of a reload: the configuration in use stays, and so does the way to the next reload",
    "aiproxyd/telemetry/prices.py": "a price that cannot be found must not hold up records: the row is kept without a cost",
    "aiproxyd/storage/store.py": "narrowed by what it is, because each database driver has exceptions of its own",
}


def broad_handlers(path: Path) -> list[ast.ExceptHandler]:
    handlers = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ExceptHandler)]
    return [handler for handler in handlers if _names(handler.type) & {"Exception", "BaseException", ""}]


def _names(node: ast.expr | None) -> set[str]:
    if node is None:
        return {""}
    nodes = node.elts if isinstance(node, ast.Tuple) else [node]
    return {part.id for part in nodes if isinstance(part, ast.Name)}


@pytest.mark.parametrize("path", package_modules(), ids=name_of)
def test_a_broad_except_is_allowed_or_raises_again(path: Path) -> None:
    for handler in broad_handlers(path):
        raises_again = any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))
        if "BaseException" in _names(handler.type) or "" in _names(handler.type):
            assert raises_again, f"line {handler.lineno}: what is not an Exception is not ours to swallow"
        else:
            assert raises_again or name_of(path) in ALLOWED, (
                f"line {handler.lineno}: not one of the places where that is allowed"
            )


def test_the_list_of_places_is_not_longer_than_needed() -> None:
    for name in ALLOWED:
        assert broad_handlers(ROOT / name), name


@pytest.mark.parametrize("path", package_modules(), ids=name_of)
def test_no_broad_except_is_silent(path: Path) -> None:
    for handler in broad_handlers(path):
        assert not all(isinstance(node, ast.Pass | ast.Continue) for node in handler.body), f"line {handler.lineno}"
