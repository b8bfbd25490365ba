"""The shape of the source: what may import what, how long things get, what ships with a node."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOST_MODULES = {
    "app",
    "comfy",
    "comfy_api",
    "comfy_config",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "latent_preview",
    "node_helpers",
    "nodes",
    "server",
}
SKIPPED = {".git", ".venv", "build", "dist", "__pycache__", ".ruff_cache", ".hypothesis"}
SCHEMAS = {"define_schema", "_inputs", "options"}


def tracked() -> list[Path]:
    """Files under version control, or all that would be where there is none."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        files = (p for p in ROOT.rglob("*") if not SKIPPED & set(p.relative_to(ROOT).parts))
    else:
        files = (ROOT / name for name in done.stdout.split("\0") if name)
    return [path for path in files if path.is_file()]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Top-level names of absolute imports, anywhere in a file."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def relative_imports(path: Path) -> list[tuple[int, str]]:
    return [
        (node.level, node.module or "")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]


def parameter(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=name_of)


METHOD, NODES = sources("projection"), sources("nodes")
PYTHON = [path for path in tracked() if path.suffix == ".py"]


def test_there_is_something_to_look_at():
    assert len(METHOD) >= 10
    assert len(NODES) >= 5
    assert ROOT / "nodes" / "host.py" in NODES


# --- what may import what ---------------------------------------------------------------------


@parameter(METHOD)
def test_the_method_imports_torch_safetensors_and_the_standard_library_only(path):
    allowed = set(sys.stdlib_module_names) | {"torch", "safetensors"}
    assert imports(path) <= allowed


@parameter(METHOD)
def test_the_method_never_reaches_out_of_its_folder(path):
    assert {level for level, _ in relative_imports(path)} <= {1}


@parameter([path for path in NODES if not re.fullmatch(r"host(_\w+)?\.py", path.name)])
def test_only_host_py_and_its_siblings_touch_the_host(path):
    assert not imports(path) & HOST_MODULES
    # PIL comes with the host.
    assert imports(path) <= set(sys.stdlib_module_names) | {"torch", "PIL"}


@parameter(NODES)
def test_nodes_take_the_method_by_relative_imports(path):
    assert "image_to_prompt" not in imports(path)
    assert all(level <= 2 for level, _ in relative_imports(path))


def test_the_entry_point_imports_nothing_before_it_is_called():
    body = tree(ROOT / "__init__.py").body
    assert not [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]


# --- what is never done -----------------------------------------------------------------------


def dotted(node: ast.expr) -> str:
    return ast.unparse(node)


@parameter([ROOT / "__init__.py", *METHOD, *NODES])
def test_nothing_prints_unpickles_evaluates_or_seeds_globally(path):
    called = {dotted(call.func) for call in calls(path)}
    forbidden = {"print", "eval", "exec", "torch.load", "torch.manual_seed", "random.seed"}
    assert not called & forbidden
    assert not imports(path) & {"pickle", "pytest", "subprocess", "urllib", "socket", "requests"}


@parameter([*METHOD, *NODES])
def test_no_error_is_caught_without_a_name_for_it(path):
    handlers = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler)]
    for handler in handlers:
        assert handler.type is not None, "a bare except"
        assert dotted(handler.type) not in ("Exception", "BaseException")


@parameter(METHOD)
def test_no_user_input_is_checked_by_assert(path):
    assert not [node for node in ast.walk(tree(path)) if isinstance(node, ast.Assert)]


# --- how long things get ----------------------------------------------------------------------


@parameter(PYTHON)
def test_files_have_at_most_300_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@parameter(PYTHON)
def test_functions_have_at_most_40_lines_but_for_schemas(path):
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, kinds)]
    long = {f.name for f in functions if f.end_lineno - f.lineno + 1 > 40}
    assert long <= SCHEMAS


@parameter([*METHOD, *NODES])
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(tree(path))


@parameter(PYTHON)
def test_source_is_ascii(path):
    assert path.read_text(encoding="utf-8").isascii()


# --- what ships with a node -------------------------------------------------------------------


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((k.value for k in call.keywords if k.arg == name), None)


def node_ids() -> list[str]:
    values = [keyword(call, "node_id") for path in NODES for call in calls(path)]
    return sorted(value.value for value in values if isinstance(value, ast.Constant))


def sockets(kind: str) -> list[ast.Call]:
    return [
        call
        for path in NODES
        for call in calls(path)
        if isinstance(call.func, ast.Attribute) and call.func.attr == kind
    ]


def test_the_node_ids_that_saved_graphs_rely_on_exist():
    assert set(node_ids()) >= {
        "ApplyProjection",
        "FitProjection",
        "ImageToPromptEmbed",
        "LoadProjection",
        "OnlineRefine",
        "SaveProjection",
    }


@pytest.mark.parametrize("node_id", node_ids())
def test_every_node_has_a_help_page(node_id):
    page = ROOT / "nodes" / "web" / "docs" / f"{node_id}.md"
    assert page.is_file()
    assert len(page.read_text(encoding="utf-8")) > 200


LOCALES = sorted((ROOT / "locales").iterdir())


def declared(node_id: str, kind: str) -> list[str]:
    """Names of a node's sockets and widgets, or of its outputs, as its source declares them."""
    [path] = [
        path
        for path in NODES
        for call in calls(path)
        if getattr(keyword(call, "node_id"), "value", None) == node_id
    ]
    [node] = [
        node for node in tree(path).body if isinstance(node, ast.ClassDef) and node.name == node_id
    ]
    found = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    helpers = {dotted(call.func).rpartition(".")[2] for call in found}
    found += [
        call
        for helper in (part for path in NODES for part in tree(path).body)
        if isinstance(helper, ast.FunctionDef)
        and helper.name in helpers
        and helper.returns
        and ast.unparse(helper.returns).startswith("list[io.")
        for call in ast.walk(helper)
        if isinstance(call, ast.Call)
    ]
    sockets = [c for c in found if isinstance(c.func, ast.Attribute) and c.func.attr == kind]
    if kind == "Output":
        return [str(index) for index in range(len(sockets))]
    return [call.args[0].value for call in sockets]


def test_there_are_translations():
    assert {path.name for path in LOCALES} >= {"de", "zh"}


@pytest.mark.parametrize("path", LOCALES, ids=lambda path: path.name)
def test_every_locale_has_words_for_every_node_socket_and_output(path):
    words = json.loads((path / "nodeDefs.json").read_text(encoding="utf-8"))
    assert sorted(words) == node_ids()
    for node_id in node_ids():
        node = words[node_id]
        assert node["display_name"] and node["description"]
        for kind, part in (("Input", "inputs"), ("Output", "outputs")):
            said = node.get(part, {})
            assert sorted(said) == sorted(declared(node_id, kind)), f"{node_id} {part}"
            assert all(one["name"] and one["tooltip"] for one in said.values())


@pytest.mark.parametrize("kind", ["Input", "Output"])
def test_every_input_and_output_has_a_tooltip(kind):
    assert sockets(kind)
    for call in sockets(kind):
        assert keyword(call, "tooltip") is not None, ast.unparse(call)
        if kind == "Output":
            assert keyword(call, "display_name") is not None, ast.unparse(call)


def test_every_schema_has_a_description_and_a_display_name():
    schemas = [call for path in NODES for call in calls(path) if keyword(call, "node_id")]
    for call in schemas:
        for name in ("description", "display_name", "category"):
            assert keyword(call, name) is not None, ast.unparse(call.func)


# --- the package ------------------------------------------------------------------------------


def test_the_pack_installs_nothing_beside_the_host():
    # Read as text: tomllib is not in Python 3.10.
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r"^dependencies = \[\]$", project, re.MULTILINE)
    assert re.search(r'^requires-comfyui = ">=0\.3\.64"$', project, re.MULTILINE)
    assert not (ROOT / "requirements.txt").exists()


# Put together, so that this file does not hold what it forbids.
PLACES = ("/" + "work/", "/" + "root/", "/" + "home/" + r"\w+/", r"[A-Z]:\\Users")
MACHINE = re.compile("|".join(PLACES))


def test_no_file_names_a_folder_of_one_machine():
    found = []
    for path in tracked():
        if path.suffix in {".safetensors", ".png", ".jpg", ".webp", ".gif"}:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if MACHINE.search(line):
                found.append(f"{name_of(path)}:{number}: {line.strip()[:80]}")
    assert not found


def test_no_real_checkpoint_is_kept_in_the_source():
    assert not [name_of(path) for path in tracked() if path.stat().st_size > 60e6]
