"""A test run that dies must count as a failure, whatever it leaves behind."""

from __future__ import annotations

import sys

import pytest

from image_to_prompt.tests import run_all

PYTHON = """#!{python}
import sys
from pathlib import Path
options = dict(a.split("=", 1) for a in sys.argv if a.startswith("--") and "=" in a)
{body}
"""


@pytest.fixture
def stand_in(tmp_path):
    """Makes an executable that is called as pytest would be."""

    def make(body: str):
        script = tmp_path / "python"
        script.write_text(PYTHON.format(python=sys.executable, body=body))
        script.chmod(0o755)
        return script

    return make


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    monkeypatch.setattr(run_all, "BUILD", tmp_path)


@pytest.mark.parametrize("body", ["sys.exit(137)", "Path(options['--junitxml']).touch()"])
def test_a_run_without_a_whole_report_fails_and_says_how_much_disk_was_free(stand_in, capfd, body):
    result = run_all.run("a host", stand_in(body), ["tests"])
    assert (result.passed, result.failed) == (0, 1)
    assert "a host: no report" in capfd.readouterr().out


def test_what_the_tests_wrote_is_removed(stand_in, tmp_path, capfd):
    body = "Path(sys.argv[0]).with_name('seen').write_text(options['--basetemp'])"
    run_all.run("a host", stand_in(body), ["tests"])
    base = (tmp_path / "seen").read_text()
    assert base and not run_all.Path(base).exists()
