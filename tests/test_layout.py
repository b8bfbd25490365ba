"""The shape of the source: which room imports which, what is never called, what is shipped."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

from image_to_prompt.tests.source import ROOT, name_of, sources, tracked

HOST = {"app", "comfy", "comfy_api", "comfy_config", "comfy_execution", "comfy_extras"}
HOST |= {"execution", "folder_paths", "latent_preview", "node_helpers", "nodes", "server"}
ROOM_LINES, MODULE_LINES, CHAIN = 900, 300, 8


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: Path) -> tuple[str, ...]:
    """The dotted name of a file, from the root on, in parts."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def absolute_imports(path: Path) -> set[str]:
    """Top-level names of absolute imports, anywhere in a file."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def own_imports(path: Path, statements: Iterator[ast.AST] | None = None) -> set[tuple[str, ...]]:
    """Modules of this repository that a file imports, in parts; not those of its own package."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path)[:-1]
    found = set()
    for node in statements or ast.walk(tree(path)):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = package[: len(package) - node.level + 1]
        elif node.module.split(".")[0] == "image_to_prompt":
            base = ()
        else:
            continue
        base += tuple((node.module or "").removeprefix("image_to_prompt").strip(".").split("."))
        base = tuple(part for part in base if part)
        for alias in node.names:
            inner = ROOT.joinpath(*base, alias.name)
            is_module = inner.with_suffix(".py").is_file() or (inner / "__init__.py").is_file()
            found.add((*base, alias.name) if is_module else base)
    return found


def longest_chain(arrows: Mapping[str, set[str]]) -> list[str]:
    """The longest way along the arrows. Fails where they form a circle."""
    known: dict[str, list[str]] = {}

    def chain(name: str, above: tuple[str, ...]) -> list[str]:
        assert name not in above, f"an import circle: {' -> '.join((*above, name))}"
        if name not in known:
            below = [chain(other, (*above, name)) for other in sorted(arrows.get(name, ()))]
            known[name] = [name, *max(below, key=len, default=[])]
        return known[name]

    return max((chain(name, ()) for name in sorted(arrows)), key=len)


def arrows_between(paths: list[Path], place: Callable[[tuple[str, ...]], str]) -> dict:
    """What imports what among these files, each named by `place`."""
    files = {module_of(path): path for path in paths}
    arrows: dict[str, set[str]] = {}
    for module, path in files.items():
        targets = {place(other) for other in own_imports(path) if other in files}
        arrows.setdefault(place(module), set()).update(targets - {place(module)})
    return arrows


# --- what may import what ---------------------------------------------------------------------


def test_projection_imports_torch_safetensors_and_the_standard_library_only():
    allowed = set(sys.stdlib_module_names) | {"torch", "safetensors"}
    for path in sources("projection"):
        assert absolute_imports(path) <= allowed, name_of(path)
        assert all(other[0] == "projection" for other in own_imports(path)), name_of(path)


def test_nodes_import_projection_and_only_nodes_host_imports_the_host():
    allowed = set(sys.stdlib_module_names) | {"torch", "PIL"}  # PIL comes with the host
    for path in sources("nodes"):
        rooms = {other[0] for other in own_imports(path) if other}
        assert rooms <= {"nodes", "projection"}, name_of(path)
        at_the_host = "host" in path.relative_to(ROOT).parts
        of_the_host = HOST | {"einops"} if at_the_host else set()
        assert absolute_imports(path) <= allowed | of_the_host, name_of(path)


def test_imports_form_no_circle_and_no_long_chain():
    for folder in ("projection", "nodes", "workflows"):
        modules = [path for path in sources(folder) if path.parent != ROOT / folder]
        modules += [path for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"]
        chain = longest_chain(arrows_between(modules, ".".join))
        assert folder != "projection" or len(chain) - 1 <= CHAIN, " -> ".join(chain)
    modules = [path for path in sources("projection") if path != ROOT / "projection/__init__.py"]
    longest_chain(arrows_between(modules, lambda module: module[1]))  # between rooms


def test_what_a_user_runs_does_not_import_the_tests():
    scripts = ("run.py", "run_many.py", "embed_many.py", "evaluate.py", "demo.py")
    waiting = [ROOT / "workflows" / name for name in scripts]
    seen = set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        # Not inside functions: the miniature's demo needs a clone, and asks for it only then.
        outer = [n for part in tree(path).body for n in _outside_functions(part)]
        for module in own_imports(path, iter(outer)):
            assert module[:1] != ("tests",), f"{name_of(path)} imports {'.'.join(module)}"
            file = ROOT.joinpath(*module).with_suffix(".py")
            if file.is_file() and file not in seen:
                waiting.append(file)
    assert len(seen) > 5


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _outside_functions(child)


def test_the_entry_point_imports_nothing_before_it_is_called():
    body = tree(ROOT / "__init__.py").body
    assert body
    assert not [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]


# --- what is never done -----------------------------------------------------------------------

FORBIDDEN = {"eval", "exec", "print", "pickle.load", "pickle.loads", "setattr"}
FORBIDDEN |= {"torch.manual_seed", "torch.cuda.manual_seed_all", "random.seed", "np.random.seed"}


def test_nothing_is_printed_unpickled_evaluated_patched_or_seeded_globally():
    for path in [ROOT / "__init__.py", *sources("projection", "nodes")]:
        for found in forbidden(tree(path)):
            raise AssertionError(f"{name_of(path)}:{found.lineno}: {ast.unparse(found)[:80]}")


def forbidden(source: ast.Module) -> Iterator[ast.stmt | ast.expr]:
    """Calls that product code never makes, asserts, and assignments into imported modules."""
    modules = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(source)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    forked = {
        inner
        for node in ast.walk(source)
        if isinstance(node, ast.With) and "fork_rng" in ast.unparse(node.items[0])
        for inner in ast.walk(node)
    }
    for node in ast.walk(source):
        if isinstance(node, ast.Assert):
            yield node
        elif isinstance(node, ast.Call) and node not in forked:
            called = ast.unparse(node.func)
            keywords = {keyword.arg for keyword in node.keywords}
            if called in FORBIDDEN or (called == "torch.load" and "weights_only" not in keywords):
                yield node
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.Delete):
            targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
            if any(_root(t) in modules for t in targets if isinstance(t, ast.Attribute)):
                yield node


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def test_what_is_forbidden_would_be_found():
    allowed = "import torch\nx = torch.load(f, weights_only=True)\nx.y = model.eval()\n"
    allowed += "with torch.random.fork_rng([]):\n    torch.manual_seed(0)\n"
    assert not list(forbidden(ast.parse(allowed)))
    for line in ("print(1)", "torch.load(f)", "torch.manual_seed(0)", "torch.a.b = f", "assert x"):
        assert len(list(forbidden(ast.parse(f"import torch\n{line}")))) == 1, line


def test_errors_are_caught_by_name():
    for path in sources("projection", "nodes"):
        for node in ast.walk(tree(path)):
            # What is raised again, such as an error in another pack's code, is not hidden.
            if isinstance(node, ast.ExceptHandler) and not isinstance(node.body[-1], ast.Raise):
                caught = ast.unparse(node.type) if node.type else "everything"
                place = f"{name_of(path)}:{node.lineno} catches {caught}"
                assert caught not in ("everything", "Exception", "BaseException"), place


# --- sizes and the package --------------------------------------------------------------------


def test_modules_and_rooms_stay_small():
    python = [path for path in tracked() if path.suffix == ".py"]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python}
    found = {name_of(path): count for path, count in lines.items() if count > MODULE_LINES}
    rooms: dict[str, int] = {}
    for path in sources("projection", "nodes", "workflows"):
        room = name_of(path.parent) + "/"
        rooms[room] = rooms.get(room, 0) + lines[path]
    found |= {room: count for room, count in rooms.items() if count > ROOM_LINES}
    assert not found


def test_the_search_path_is_edited_in_at_most_two_files():
    edit = re.compile(r"^\s*sys\.path(\.\w+\(|\[.*\] *=| *\+?=)", re.MULTILINE)
    python = [path for path in tracked() if path.suffix == ".py"]
    edited = [path for path in python if edit.search(path.read_text(encoding="utf-8"))]
    assert len(edited) <= 2, [name_of(path) for path in edited]


def test_the_package_is_whole_and_installs_nothing_beside_the_host():
    # Read as text: tomllib is not in Python 3.10.
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r"^dependencies = \[\]$", project, re.MULTILINE)
    assert re.search(r'^requires-comfyui = ">=0\.3\.64"$', project, re.MULTILINE)
    assert not (ROOT / "requirements.txt").exists()
    listed = set(re.findall(r'"image_to_prompt\.(projection[\w.]*)"', project))
    assert listed == {".".join(module_of(p)) for p in sources("projection") if p.name[0] == "_"}
    assert (ROOT / "projection" / "py.typed").is_file()
    assert not [name_of(path) for path in tracked() if path.stat().st_size > 60e6]
