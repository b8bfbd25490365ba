"""The archive that a registry ships: small, without tests, and what users run works from it."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from image_to_prompt.workflows.comfyui.hosts import PACK

MOST_BYTES = 1_000_000
SCRIPTS = ("run", "run_many", "embed_many", "demo", "evaluate")


def git(*arguments: str) -> list[str]:
    done = subprocess.run(
        ["git", *arguments, "-z"], cwd=PACK, capture_output=True, text=True, check=True
    )
    return [name for name in done.stdout.split("\0") if name]


@pytest.fixture(scope="module")
def shipped():
    """Paths that are shipped: under version control, or about to be, and not in .comfyignore."""
    if not (PACK / ".git").exists():
        pytest.skip("no clone: what is under version control is not known")
    known = git("ls-files", "--cached", "--others", "--exclude-standard")
    ignored = {
        *git("ls-files", "--cached", "--ignored", "--exclude-from=.comfyignore"),
        *git("ls-files", "--others", "--ignored", "--exclude-from=.comfyignore"),
    }
    return [name for name in known if name not in ignored and (PACK / name).is_file()]


@pytest.fixture(scope="module")
def archive(shipped, tmp_path_factory):
    """The archive, written and unpacked again: its file and the folder."""
    folder = tmp_path_factory.mktemp("archive")
    with zipfile.ZipFile(folder / "node.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in shipped:
            packed.write(PACK / name, name)
    with zipfile.ZipFile(folder / "node.zip") as packed:
        packed.extractall(folder / "custom_nodes" / "some-name")
    return folder / "node.zip", folder / "custom_nodes" / "some-name"


def python(folder: Path, *line: str) -> subprocess.CompletedProcess:
    """A run with nothing of the clone on the path, from another folder."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COMFYUI"))}
    return subprocess.run(
        [sys.executable, *line],
        cwd=folder.parent,
        env=environment | {"HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_archive_is_small_and_holds_no_tests_and_no_weights(archive, shipped):
    assert archive[0].stat().st_size < MOST_BYTES
    assert not [name for name in shipped if name.startswith("tests/")]
    assert not [name for name in shipped if name.endswith((".safetensors", ".pt"))]


def test_the_archive_holds_what_the_pack_needs(shipped):
    for name in ("__init__.py", "pyproject.toml", "README.md", "LICENSE"):
        assert name in shipped
    for folder in ("nodes/web/docs/", "locales/", "projection/", "workflows/api/"):
        assert [name for name in shipped if name.startswith(folder)]


def test_the_top_of_workflows_holds_only_what_users_open_and_run(shipped):
    top = {Path(name).name for name in shipped if Path(name).parent == Path("workflows")}
    scripts = {f"{name}.py" for name in (*SCRIPTS, "checkout", "__init__")}
    assert {name for name in top if not name.endswith((".json", ".jpg", ".md"))} == scripts


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_says_how_it_is_used(name, archive):
    done = python(archive[1], str(archive[1] / "workflows" / f"{name}.py"), "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_the_demonstration_on_own_files_works_up_to_where_a_host_is_looked_for(archive):
    files = [str(archive[1] / "LICENSE")] * 2
    script = str(archive[1] / "workflows" / "demo.py")
    done = python(archive[1], script, "--checkpoint", files[0], "--clip", files[1])
    assert done.returncode == 1
    assert done.stderr.startswith("No ComfyUI in") and "Traceback" not in done.stderr


def test_the_demonstration_of_the_miniature_says_in_one_line_that_it_needs_a_clone(archive):
    done = python(archive[1], str(archive[1] / "workflows" / "demo.py"))
    assert done.returncode == 1
    assert done.stderr.startswith("The miniature needs a clone") and done.stderr.count("\n") == 1


def test_the_runner_sends_a_workflow_of_the_archive(archive):
    folder = archive[1] / "workflows"
    line = [str(folder / "run.py"), str(folder / "api" / "use_a_fit.json")]
    done = python(archive[1], *line, "--server", "http://127.0.0.1:9")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("http://127.0.0.1:9/prompt: connection refused")


def test_hosts_are_listed(archive):
    done = python(archive[1], str(archive[1] / "workflows" / "run.py"), "--hosts")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("No ComfyUI in")


def test_help_of_the_builders_changes_no_file():
    before = {path: path.stat().st_mtime_ns for path in (PACK / "workflows").glob("**/*.json")}
    for tool in ("build", "thumbnails"):
        line = [str(PACK / "workflows" / "authoring"), tool, "--help"]
        done = python(PACK, *line)
        assert done.returncode == 0 and "usage:" in done.stdout, done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_search_path_of_python_is_edited_in_at_most_two_files():
    edited = re.compile(r"sys\.path(\.(insert|append|extend|remove)\(|\[?.*\]? \+?= )")
    found = [
        path.relative_to(PACK).as_posix()
        for folder in ("nodes", "projection", "tests", "workflows")
        for path in (PACK / folder).rglob("*.py")
        if edited.search(path.read_text(encoding="utf-8")) and path != Path(__file__)
    ]
    assert found == ["tests/host/in_process.py"]
