"""The command over a folder, on servers that are stand-ins: nothing is lost, nothing is double."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from image_to_prompt.tests.workflows.many.stand_in import drawn
from image_to_prompt.workflows.api_client.inputs import with_inputs
from image_to_prompt.workflows.many.jobs import seed_of

unix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


def expected(collection) -> dict[str, bytes]:
    """What the stand-in draws for each picture, by the arithmetic alone."""
    graph = json.loads(collection.graph.read_text())
    return {
        path.name: drawn(
            with_inputs(graph, [path.name], (), {"seed": seed_of(path.name)}), path.read_bytes()
        )
        for path in sorted(collection.images.glob("*.png"))
    }


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def await_gone(pids: list[int]) -> None:
    end = time.monotonic() + 20
    while any(map(alive, pids)):
        assert time.monotonic() < end, "a server outlives its run"
        time.sleep(0.02)


@pytest.mark.parametrize("workers", ["1", "3"])
def test_results_do_not_depend_on_the_number_of_workers(workers, collection):
    assert collection.run("--workers", workers) == 0
    assert collection.results() == expected(collection)
    assert {record["state"] for record in collection.jobs().values()} == {"done"}
    await_gone(collection.servers())


def test_the_same_command_again_starts_nothing_and_changes_nothing(collection, capsys):
    assert collection.run() == 0
    before = collection.results()
    assert collection.run() == 0
    assert len(collection.servers()) == 1 and collection.results() == before
    assert "8 were done before" in capsys.readouterr().err


def test_only_what_is_missing_or_changed_runs_again(collection):
    assert collection.run() == 0
    (collection.out / "3.png").unlink()
    collection.picture("5.png", b"another picture")
    collection.picture("new.png", b"a new one")
    assert collection.run() == 0
    worked = [r["job"] for r in collection.records() if "job" in r][8:]
    assert sorted(worked) == ["3.png", "5.png", "new.png"]
    results, wanted = collection.results(), expected(collection)
    assert results.pop("5-2.png") == wanted["5.png"]
    assert results.keys() == wanted.keys(), "the earlier result of 5.png is kept"


@pytest.mark.slow
def test_a_changed_setting_redoes_every_job_and_keeps_the_earlier_results(collection):
    assert collection.run() == 0
    before = collection.results()
    assert collection.run("--strength", "0.5") == 0
    after = collection.results()
    assert len(after) == 16 and before.items() <= after.items()


@pytest.mark.slow
def test_broken_pictures_are_recorded_in_the_servers_words(collection, capsys):
    collection.picture("bad.png", b"broken")
    collection.picture("never.png", b"memory")
    assert collection.run("--workers", "2") == 1
    jobs = collection.jobs()
    assert jobs["bad.png"]["kind"] == "node" and "attempts" not in jobs["bad.png"]
    assert "node 1 (LoadImage): OSError: cannot identify" in jobs["bad.png"]["error"]
    assert jobs["never.png"]["kind"] == "out of memory" and len(jobs["never.png"]["attempts"]) == 3
    assert sum(record["state"] == "done" for record in jobs.values()) == 8
    told = capsys.readouterr().err
    assert "2 failed" in told and "1 node" in told


def test_a_job_that_kills_servers_does_not_stop_the_others(collection):
    collection.picture("0-first.png", b"poison")
    assert collection.run("--workers", "2") == 1
    jobs = collection.jobs()
    assert jobs["0-first.png"]["kind"] == "kills the server"
    assert len(jobs["0-first.png"]["attempts"]) == 3
    assert jobs["0-first.png"]["error"].endswith("\nAborted: the picture is poison")
    assert sum(record["state"] == "done" for record in jobs.values()) == 8
    await_gone(collection.servers())


@pytest.mark.slow
def test_a_job_without_an_end_is_given_up(collection):
    collection.picture("4.png", b"stuck")
    assert collection.run("--job-timeout", "1") == 1
    assert collection.jobs()["4.png"]["kind"] == "time"
    assert sum(record["state"] == "done" for record in collection.jobs().values()) == 7


@pytest.mark.slow
@unix
def test_a_killed_server_is_started_again_and_its_job_is_done(collection):
    for number in range(8, 24):
        collection.picture(f"{number}.png", f"picture {number}".encode())
    process = collection.popen("--workers", "2", "--verbose")
    for line in process.stderr:
        if b" s" in line and b"worker" in line:
            break
    os.kill(collection.servers()[0], signal.SIGKILL)
    told = process.stderr.read().decode()
    assert process.wait(60) == 0, told
    assert collection.results() == expected(collection)
    retried = [r for r in collection.jobs().values() if "attempts" in r]
    assert [attempt["kind"] for attempt in retried[0]["attempts"]] == ["kills the server"]
    assert len(retried) == 1 and "1 were tried more than once" in told


@pytest.mark.slow
@unix
@pytest.mark.parametrize("seed", range(4))
def test_a_killed_driver_leaves_no_server_and_the_next_run_completes(seed, collection):
    moments = random.Random(seed)
    for _ in range(2):
        process = collection.popen("--workers", "2", pause="0.03")
        while not (collection.host / "started").exists():
            time.sleep(0.01)
        time.sleep(moments.uniform(0.2, 1.2))
        process.kill()
        process.wait()
        process.stderr.close()
        await_gone(collection.servers())
    assert collection.run("--workers", "2") == 0
    assert collection.results() == expected(collection)
    done = [r["job"] for r in collection.records() if r.get("state") == "done"]
    assert sorted(done) == sorted(expected(collection)), "none is done twice"
    assert collection.records()[-1]["how"] == "complete"


@pytest.mark.slow
@unix
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_within_a_job(sent, code, collection):
    collection.picture("0.png", b"stuck")
    collection.picture("1.png", b"stuck")
    process = collection.popen("--workers", "2", "--verbose")
    while not (collection.host / "started").exists() or len(collection.servers()) < 2:
        time.sleep(0.02)
    time.sleep(0.7)
    process.send_signal(sent)
    began = time.monotonic()
    told = process.communicate(timeout=30)[1].decode()
    assert process.returncode == code, told
    assert time.monotonic() - began < 10 and "8 are missing" in told
    await_gone(collection.servers())
    assert collection.records()[-1]["how"] == "interrupted"


@unix
def test_two_runs_into_one_folder_refuse_each_other(collection, capsys):
    collection.picture("0.png", b"stuck")
    process = collection.popen()
    while not (collection.out / "manifest.jsonl").exists():
        time.sleep(0.02)
    try:
        assert collection.run() == 1
        assert capsys.readouterr().err.endswith("another run saves into this folder\n")
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_a_result_that_was_saved_but_not_recorded_is_taken_over(collection):
    assert collection.run() == 0
    manifest = collection.out / "manifest.jsonl"
    kept = [line for line in manifest.read_text().splitlines() if '"2.png"' not in line]
    manifest.write_text("\n".join(kept) + "\n")
    before = collection.results()
    assert collection.run() == 0
    assert collection.results() == before and collection.jobs()["2.png"]["state"] == "done"


def test_a_file_of_the_users_is_not_replaced(collection):
    collection.out.mkdir()
    (collection.out / "2.png").write_bytes(b"mine")
    assert collection.run() == 0
    results = collection.results()
    assert results.pop("2.png") == b"mine"
    assert results["2-2.png"] == expected(collection)["2.png"]


def test_a_host_that_cannot_start_ends_the_run_with_its_words(collection, capsys):
    (collection.host / "main.py").write_text("raise SystemExit('no model for me')")
    assert collection.run("--workers", "2") == 1
    assert "no model for me" in capsys.readouterr().err
    assert collection.records()[-1]["how"].startswith("EngineError")


def test_pictures_of_subfolders_keep_their_folders(collection):
    collection.picture("a/0.png", b"deep")
    assert collection.run() == 0
    assert (collection.out / "a" / "0.png").is_file() and (collection.out / "0.png").is_file()


@pytest.mark.slow
def test_servers_that_run_are_used_and_left_alone(collection, tmp_path):
    (tmp_path / "base/input").mkdir(parents=True)
    (tmp_path / "base/output").mkdir()
    port = "18731"
    line = [sys.executable, str(collection.host / "main.py"), "--port", port]
    server = subprocess.Popen([*line, "--base-directory", str(tmp_path / "base")])
    try:
        assert collection.run("--server", f"http://127.0.0.1:{port}/") == 0
        assert collection.results() == expected(collection)
        assert server.poll() is None
    finally:
        server.kill()
        server.wait()
