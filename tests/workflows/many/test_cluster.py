"""The same on a Ray cluster of two machines, which Ray's own utility simulates on this one."""

from __future__ import annotations

import os
import signal
import time

import pytest

from image_to_prompt.tests.workflows.many.test_run_many import await_gone, expected

ray = pytest.importorskip("ray", reason="ray is not installed: make cluster-test")
pytestmark = pytest.mark.slow
SET = ("HOME", "RAY_USAGE_STATS_ENABLED", "STAND_IN_PAUSE")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two machines with a core each, and no GPU."""
    from ray.cluster_utils import Cluster

    previous = {name: os.environ.get(name) for name in SET}
    os.environ["HOME"] = str(tmp_path_factory.mktemp("home"))  # Ray writes its token there
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["STAND_IN_PAUSE"] = "0.1"
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()
    for name, value in previous.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="module")
def address(cluster):
    return cluster.address


@pytest.fixture
def clustered(collection, address):
    def run(*more: str) -> int:
        return collection.run("--address", address, *more)

    return run


def test_two_machines_give_what_one_gives(clustered, collection):
    collection.picture("bad.png", b"broken")
    assert clustered() == 1
    jobs = collection.jobs()
    assert jobs["bad.png"]["kind"] == "node" and "cannot identify" in jobs["bad.png"]["error"]
    wanted = expected(collection)
    del wanted["bad.png"]
    assert collection.results() == wanted
    assert {record["worker"] for record in jobs.values()} == {"worker 1", "worker 2"}
    await_gone(collection.servers())


def test_a_killed_server_and_a_killed_actor_lose_nothing(clustered, collection, address):
    for number in range(8, 40):
        collection.picture(f"{number}.png", f"picture {number}".encode())
    process = collection.popen("--address", address, "--verbose", pause="0.1")
    seen = 0
    for line in process.stderr:
        seen += b"worker" in line and b" s" in line
        if seen == 3:
            os.kill(collection.servers()[0], signal.SIGKILL)
        if seen == 10:
            os.kill(actor_of(collection.servers()[1]), signal.SIGKILL)
            break
    told = process.stderr.read().decode()
    assert process.wait(120) == 0, told
    assert collection.results() == expected(collection)
    retried = [record for record in collection.jobs().values() if "attempts" in record]
    errors = [attempt["error"] for record in retried for attempt in record["attempts"]]
    assert len(errors) == 2 and sum("the worker is gone" in error for error in errors) == 1, errors
    done = [record["job"] for record in collection.records() if record.get("state") == "done"]
    assert len(done) == len(set(done)) == 40
    await_gone(collection.servers())


def actor_of(server: int) -> int:
    """The process whose child is the guard of this server."""

    def parent(pid: int) -> int:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])

    return parent(parent(server))


def test_a_killed_driver_leaves_no_server(clustered, collection, address):
    process = collection.popen("--address", address, "--verbose", pause="0.1")
    for line in process.stderr:
        if b"worker" in line and b" s" in line:
            break
    process.kill()
    process.communicate()
    await_gone(collection.servers())
    assert clustered() == 0
    assert collection.results() == expected(collection)
    done = [record["job"] for record in collection.records() if record.get("state") == "done"]
    assert len(done) == len(set(done)) == 8


@pytest.mark.parametrize("where", ["a cluster", "this machine"])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_within_a_job(sent, code, where, collection, address):
    collection.picture("0.png", b"stuck")
    collection.picture("1.png", b"stuck")
    engine = ["--address", address] if where == "a cluster" else ["--engine", "ray"]
    process = collection.popen(*engine, "--workers", "2", "--verbose")
    while not (collection.host / "started").exists() or len(collection.servers()) < 2:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(sent)
    told = process.communicate(timeout=60)[1].decode()
    assert process.returncode == code, told
    await_gone(collection.servers())
    assert collection.records()[-1]["how"] == "interrupted"


def test_a_job_that_kills_servers_stops_no_other(clustered, collection):
    collection.picture("0-first.png", b"poison")
    assert clustered() == 1
    assert collection.jobs()["0-first.png"]["kind"] == "kills the server"
    assert sum(record["state"] == "done" for record in collection.jobs().values()) == 8


def test_a_cluster_without_a_gpu_says_what_to_do(collection, address, capsys):
    from image_to_prompt.workflows import run_many

    line = [word for word in collection.line("--address", address) if word != "--cpu"]
    assert run_many.main(line) == 1
    assert "--cpu runs a server on each machine's CPU" in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_told_in_one_line(collection, capsys):
    assert collection.run("--address", "127.0.0.1:9") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("no Ray cluster at 127.0.0.1:9: ")


def test_a_machine_that_is_lost_loses_no_job(collection, cluster, address):
    for number in range(8, 40):
        collection.picture(f"{number}.png", f"picture {number}".encode())
    machine = cluster.add_node(num_cpus=1)
    process = collection.popen("--address", address, "--verbose", pause="0.1")
    seen = set()
    for line in process.stderr:
        seen |= {line.split(b":")[0]} if b" s" in line and line.startswith(b"worker") else set()
        if len(seen) == 3:
            break
    cluster.remove_node(machine, allow_graceful=False)
    told = process.stderr.read().decode()
    assert process.wait(120) == 0, told
    assert collection.results() == expected(collection)
    await_gone(collection.servers())
