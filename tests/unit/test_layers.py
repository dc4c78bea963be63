"""The structure of the source: the rules of docs/design.md for imports and sizes."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RELAY, LIBRARY = "socket2me_flask", "socket2me"
SERVER_LIBRARIES = {"engineio", "eventlet", "flask", "flask_socketio", "gunicorn", "redis", "socketio", "werkzeug"}

# What the modules of a package of the relay, or a module at its root, do not import.
FORBIDDEN = {
    **dict.fromkeys(
        ["relay", "storage", "cluster", "engineio", "http", "concurrency", "worker", "smee"],
        {"flask", "flask_socketio", "socketio"},
    ),
    **dict.fromkeys(["api", "app", "services", "gateway", "lifecycle"], {"flask_socketio", "socketio"}),
}

# What these import of the relay, at most.
AT_THE_BOTTOM = {"http", "concurrency", "errors", "limits", "config"}
ALLOWED = {name: AT_THE_BOTTOM for name in AT_THE_BOTTOM} | {
    "http": AT_THE_BOTTOM | {"logs"},
    "engineio": AT_THE_BOTTOM | {"engineio"},
}

# The packages of the library, from the lowest: none imports one that follows it.
LIBRARY_LAYERS = ["local_app", "client", "saved", "output", "listening", "cli"]

MOST_ROOT_MODULES = 9
MOST_CLASS_LINES = 250


def modules(folder: str) -> Iterator[tuple[str, Path]]:
    """Yield the name and the path of each module below a folder."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        if "node_modules" not in path.parts:
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(name: str, path: Path, *, at_load: bool = False) -> set[str]:
    """Return what a module imports, by absolute names; `from a import b` is `a.b`.

    With `at_load`, only what it imports when it is loaded: neither in functions nor for type checkers.
    """
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    waiting: list[ast.AST] = [parsed(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            of = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{of}.{alias.name}" for alias in node.names}
        elif at_load and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ):
            continue
        waiting += ast.iter_child_nodes(node)
    return found


def packages_of(name: str) -> list[str]:
    """Return the packages that a module is in."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def part_of(name: str) -> str:
    """Return which package or root module of the relay, or of the library, a module belongs to."""
    return (name.split(".") + [""])[1]


def test_no_layer_imports_what_it_must_not_know():
    """Flask is known to `api`, `app` and `services`, python-socketio to `sockets`."""
    wrong = [
        (name, each)
        for name, path in modules(RELAY)
        for each in imports(name, path)
        if each.split(".")[0] in FORBIDDEN.get(part_of(name), ())
    ]
    assert wrong == []


def test_what_is_at_the_bottom_imports_nothing_above_it():
    """`http`, `concurrency` and the like serve any server; `engineio` does not know what its messages mean."""
    wrong = [
        (name, each)
        for name, path in modules(RELAY)
        for each in imports(name, path)
        if each.split(".")[0] == RELAY and part_of(each) not in ALLOWED.get(part_of(name), {part_of(each)})
    ]
    assert wrong == []


def test_the_packages_of_the_library_are_layers():
    """What a command prints knows no command; what connects to the relay knows neither."""
    wrong = [
        (name, each)
        for name, path in modules(LIBRARY)
        for each in imports(name, path)
        if part_of(name) in LIBRARY_LAYERS
        and each.split(".")[0] == LIBRARY
        and part_of(each) in LIBRARY_LAYERS[LIBRARY_LAYERS.index(part_of(name)) + 1 :]
    ]
    assert wrong == []


def test_the_library_imports_nothing_of_the_relay():
    """Nor what only the relay needs: `pip install socket2me` brings neither."""
    forbidden = {RELAY} | SERVER_LIBRARIES - {"socketio", "engineio"}
    wrong = [
        (name, each)
        for name, path in modules(LIBRARY)
        for each in imports(name, path)
        if each.split(".")[0] in forbidden
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", [RELAY, LIBRARY])
def test_modules_do_not_import_each_other_in_a_circle(folder):
    """In no way: neither when they are loaded, nor in functions, nor for type checkers.

    A package counts as imported by what is outside of it and imports one of its modules.
    """
    known = dict(modules(folder))
    graph = {}
    for name, path in known.items():
        found = {each if each in known else each.rpartition(".")[0] for each in imports(name, path)}
        packages = {
            package for each in found for package in packages_of(each) if not f"{name}.".startswith(f"{package}.")
        }
        graph[name] = (found | packages) & known.keys() - {name}
    TopologicalSorter(graph).prepare()  # raises `CycleError`


def test_the_master_of_gunicorn_imports_no_eventlet():
    """It imports the class of its workers."""
    path = ROOT / RELAY / "worker" / "eventlet_worker.py"
    assert not any(each.split(".")[0] == "eventlet" for each in imports("x", path, at_load=True))


def test_how_many_modules_are_at_the_root():
    """A reader sees the packages, which are named for the steps of a call."""
    found = {path.stem for path in (ROOT / RELAY).glob("*.py")} - {"__init__"}
    assert len(found) <= MOST_ROOT_MODULES, found


def test_how_long_a_class_is():
    """A longer one knows more than one thing."""
    long = {
        f"{name}.{node.name}"
        for folder in (RELAY, LIBRARY)
        for name, path in modules(folder)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno + 1 > MOST_CLASS_LINES
    }
    assert long == set()


def test_no_test_module_imports_another():
    """What tests share is in `tests/support`, and what pytest finds by itself is not imported."""
    wrong = [
        (name, each)
        for name, path in modules("tests")
        for each in imports(name, path)
        if each.startswith("tests.")
        and any(part.startswith(("test_", "conftest")) for part in each.split(".")[:-1])
    ]
    assert wrong == []


# Of other packages, which have no public way to it.
PRIVATE_OF_OTHERS = {"_exit", "_handle_eio_message", "_reconnect_task", "_send_packet"}


def test_tests_use_nothing_private():
    """Neither an attribute of an object other than `self`, in code or in a text, nor a name that is imported."""
    wrong = []
    for name, path in modules("tests"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute):
                is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                names = [] if is_own else [node.attr]
            elif isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.Call) and re.search(r"\b(get|set|del|has)attr$", ast.unparse(node.func)):
                texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
                names = [each.rpartition(".")[2] for each in texts if isinstance(each, str)]
            else:
                continue
            wrong += [
                (name, each)
                for each in names
                if each.startswith("_") and not each.startswith("__") and each not in PRIVATE_OF_OTHERS
            ]
    assert wrong == []


# In a fresh interpreter: the modules that came with an import.
CODE = """
import sys
import socket2me_flask.storage.memory
print(*sys.modules, sep="\\n")
"""
NOT_LOADED = {f"{RELAY}.engineio", f"{RELAY}.sockets", *SERVER_LIBRARIES - {"gunicorn", "werkzeug"}}


def test_the_storage_loads_no_transport_and_no_framework():
    """`import socket2me_flask.storage.memory` loads no module of Engine.IO, Socket.IO, Flask, eventlet or Redis."""
    loaded = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.split()
    assert "socket2me_flask.storage.sqlite" in loaded
    assert [name for name in loaded if any(f"{name}.".startswith(f"{each}.") for each in NOT_LOADED)] == []


def test_no_script_of_redis_is_written_twice():
    """Lua would take the later one, without a word."""
    names = re.findall(
        r"^function scripts\.(\w+)", (ROOT / RELAY / "cluster" / "redis.lua").read_text(), re.MULTILINE
    )
    assert len(names) > 30
    assert sorted(names) == sorted(set(names))
