"""A real Ray cluster on this machine: a head without CPUs, and nodes of one CPU; nodes and drivers are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from command import NAS, QUICK, error_line, inline, nas, results, survivors
from conftest import job
from work import Deadly, Misbehaving

from nas import plugins
from nas.architecture.architecture import Architecture
from nas.architecture.layers import Conv2d, Dense, Flatten, GlobalAveragePool
from nas.comparison.settings import Comparison
from nas.data.dataset import Dataset, Split
from nas.errors import NasError, UsageError
from nas.evaluation.cluster import connection
from nas.evaluation.cluster.cluster import Node, differences
from nas.evaluation.cluster.evaluator import RayEvaluator
from nas.evaluation.cluster.facts import software
from nas.evaluation.local.local import LocalEvaluator
from nas.experiment import Experiment
from nas.testing import check
from nas.training.recipe import Recipe
from nas.trial import Trial

pytestmark = pytest.mark.ray

SEARCH = ["search", *QUICK, "--epochs", "0.0625", "--trials", "8", "--batch", "4", "--mlflow", "off"]
DENSE = Architecture((Flatten(), Dense(4)))


class Cluster:
    """A cluster whose nodes come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as Nodes

        self.nodes: list[Any] = []
        self._cluster = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.address: str = self._cluster.address

    def add(self, **environment: str) -> None:
        self.nodes.append(self._cluster.add_node(num_cpus=1, env_vars=environment))

    def kill(self, number: int = 0) -> None:
        """As if its plug was pulled."""
        node = self.nodes.pop(number)
        own = [one.process.pid for processes in node.all_processes.values() for one in processes]
        for process in [psutil.Process(pid) for pid in own]:
            for one in [process, *process.children(recursive=True)]:
                one.kill()
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    tests = str(Path(__file__).parent)  # so that nodes can import what trains in tests
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # otherwise Ray writes a token into the home folder
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH", "")])))
        made = Cluster()
        made.add()
        made.add()
        patch.setenv("RAY_ADDRESS", made.address)
        yield made
        connection.leave()  # the tests of this process; a node to which it is connected cannot be removed
        made.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search of two workers on this machine."""
    folder = tmp_path_factory.mktemp("cluster")
    nas(*SEARCH, "--workers", "2", "--out", "local", cwd=folder)
    return folder


@contextmanager
def search(place: Path, out: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A search on the cluster, which is ended afterwards."""
    command = [*NAS, *SEARCH, "--evaluator", "ray", *words, "--out", out]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=place, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """The next line of a search that has these words."""
    assert process.stderr is not None
    while words not in (line := process.stderr.readline()):
        assert line, f"the search ended without {words!r}"
    return line


def agents() -> list[psutil.Process]:
    return [one for one in psutil.process_iter() if "ray::Agent" in " ".join(_words(one))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_a_search_that_loses_its_nodes_and_its_driver_finds_what_one_machine_finds(
    cluster: Cluster, place: Path
) -> None:
    with search(place, "lost") as process:
        read_until(process, " 4/8 done")
        cluster.kill()
        cluster.kill()
        read_until(process, "no node is left")
        cluster.add()
        read_until(process, "searching: ")
        process.kill()
    cluster.add()
    with subprocess.Popen([*NAS, "resume", "lost"], cwd=place, text=True, stderr=subprocess.PIPE) as process:
        read_until(process, "training the best again")
        trainers = agents()
        assert len(trainers) == 2
        workers = [child for trainer in trainers for child in trainer.children(recursive=True)]
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert not survivors([*trainers, *workers])
    assert "2 nodes" in nas("cluster", "status", cwd=place).stdout  # it is somebody else's, and stays
    nas("resume", "lost", cwd=place)
    assert results(place / "lost") == results(place / "local")


class RayMisbehaving(RayEvaluator):
    """With what goes wrong in every way."""

    trainer = Misbehaving


class RayDeadly(RayEvaluator):
    """With a job that ends its agent."""

    trainer = Deadly


def evaluate(
    kind: Any, data: Dataset, seeds: list[int], network: Architecture = DENSE, **options: Any
) -> dict[int, Trial]:
    with kind(data, Recipe(batch_size=16, shift=0), **{"workers": 2, **options}) as evaluator:
        trials = list(evaluator.evaluate([job(network, 1, seed) for seed in seeds]))
    assert len(trials) == len(seeds)
    return {trial.job.seed: trial for trial in trials}


def failures(trials: dict[int, Trial]) -> dict[int, Any]:
    return {
        seed: trial.failure and (trial.failure.kind, trial.failure.message.partition(" GiB")[0])
        for seed, trial in trials.items()
    }


def test_what_goes_wrong_is_the_same_failure_as_on_one_machine(
    cluster: Cluster, blobs: Dataset, tmp_path: Path
) -> None:
    seeds = [0, 1, 2, 7, 10, 12]
    far = evaluate(RayMisbehaving, blobs, seeds, weights=tmp_path, memory=1.0)
    near = evaluate(Misbehaving, blobs, seeds, weights=tmp_path, memory=1.0)
    assert failures(far) == failures(near)
    assert failures(far)[12] is None


def test_a_job_that_ends_its_agents_costs_itself_only(cluster: Cluster, blobs: Dataset) -> None:
    lines: list[str] = []
    found = failures(evaluate(RayDeadly, blobs, list(range(6)), warn=lines.append))
    assert found.pop(3) == ("crash", "4 agents were lost with it, the last one when it was alone there")
    assert set(found.values()) == {None}
    assert any("was lost: what it has trained begins anew" in line for line in lines)


def test_the_contract_of_evaluators(cluster: Cluster) -> None:
    assert {one.requirement: one.broken for one in check("evaluator", RayEvaluator) if one.broken} == {}


def test_a_sample_of_the_images_is_not_taken_for_all_of_them(cluster: Cluster, blobs: Dataset) -> None:
    few = replace(blobs, train=Split(blobs.train.images[:32], blobs.train.labels[:32]))
    assert few.fingerprint == blobs.fingerprint
    for data in (few, blobs):  # the plan of a search is made with a sample
        [far], [near] = (evaluate(kind, data, [1]).values() for kind in (RayEvaluator, LocalEvaluator))
        assert far.metrics["validation_loss"] == near.metrics["validation_loss"]


def test_weights_come_back(cluster: Cluster, blobs: Dataset, tmp_path: Path) -> None:
    for kind, name in ((RayEvaluator, "far"), (LocalEvaluator, "near")):
        folder = tmp_path / name
        folder.mkdir()
        evaluate(kind, blobs, [1, 2], weights=folder)
    far, near = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in ("far", "near"))
    assert far == near
    assert len(far) == 2


def test_layers_of_plugin_files_travel(cluster: Cluster, blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_offered", [])
    plugins.offer([Path(__file__).parent.parent / "plugins"])
    attention = plugins.layer("SqueezeExcitation")(2)
    network = Architecture((Conv2d(4, 3), attention, GlobalAveragePool()))
    for _ in range(2):  # the agents stay for the second evaluator
        [trial] = evaluate(RayEvaluator, blobs, [1], network).values()
        assert trial.failure is None


class Scripted:
    """An agent with a GPU that takes jobs and returns nothing."""

    def __init__(self) -> None:
        self.node = Node("a", "a", 4, 1)
        self.facts = {**software(), "processor": "avx2", "gpu": "A"}
        self.layers = self.user = None
        self.session = 0
        self.started: Future[Any] = Future()
        self.started.set_result(self.facts)
        self.given: list[int] = []  # jobs at a time

    def device(self, wanted: str) -> str:
        return wanted

    def workers(self, wanted: str) -> int:
        return 1

    def call(self, method: str, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if method == "submit":
            self.given.append(sum(map(len, json.loads(args[2]).values())))
        if method == "begin":
            future.set_result(4)
        return future


def test_a_gpu_gets_its_whole_group_at_a_time(monkeypatch: pytest.MonkeyPatch, blobs: Dataset) -> None:
    agent = Scripted()
    cluster = SimpleNamespace(
        agents=[agent], settled=[agent], alive={"a"}, refused={}, told=set(), first=None, why_useless="",
        look=lambda: None, welcome=lambda one: True,
    )  # fmt: skip
    monkeypatch.setattr("nas.evaluation.cluster.evaluator.connected", lambda address: cluster)
    monkeypatch.setattr("nas.evaluation.cluster.evaluator.packed", lambda data, put: None)
    evaluator = RayEvaluator(blobs, Recipe(), workers=1, device="cuda", until=time.monotonic() + 2)
    evaluator.submit([job(DENSE, 1, seed) for seed in range(6)], 1)
    assert evaluator.finished() == []
    assert agent.given == [4]


def test_the_address_of_a_cluster_is_not_taken_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('evaluator = "ray"\n[options]\n"evaluator.address" = "localhost:1"\n')
    with pytest.raises(UsageError, match=r"mine.toml, line 3: evaluator.address says where"):
        Experiment.read(file)
    file.write_text('strategies = "evolve"\n[options]\nevaluator.address = "localhost:1"\n')
    with pytest.raises(UsageError, match="which a file does not decide"):
        Comparison.read(file)
    here = {"evaluator.address": "localhost:1", "evaluator.mixed": "true"}
    both = Comparison.of(strategies="evolve,reference", evaluator="ray", options=here)
    assert "address" not in both.to_toml()
    assert "mixed" in both.to_toml()
    file.write_text(Experiment.of(evaluator="ray", options=here).to_toml())
    assert Experiment.read(file).options == {"evaluator.mixed": "true"}


def test_the_nodes_are_listed(cluster: Cluster) -> None:
    plain = json.loads(inline("cluster", "status", "--json").stdout)
    assert [(node["cpus"], node["problem"]) for node in plain["nodes"]] == [(1, "")] * 2
    assert not plain["authentication"]
    shown = inline("cluster", "status").stdout
    assert "without authentication" in shown
    assert "trains on 2 nodes with 2 CPUs" in shown


def test_nodes_that_differ_are_refused_unless_they_may_be_mixed(cluster: Cluster) -> None:
    connection.leave()  # agents that the tests of this process have left
    cluster.add(ATEN_CPU_CAPABILITY="default")
    try:
        with pytest.raises(UsageError, match=r"differ in the processor .*evaluator.mixed=true") as refused:
            RayEvaluator.hardware({})
        assert str(refused.value).count(os.uname().nodename) == 2
        assert RayEvaluator.hardware({"mixed": True}).workers("cpu") == 3
    finally:
        connection.leave()
        cluster.kill(-1)


@pytest.mark.parametrize(
    ("address", "words"),
    [("ray://localhost:10001", "ray job submit"), ("localhost:1", "no Ray cluster at localhost:1")],
)
def test_an_address_without_a_cluster_is_one_line(place: Path, address: str, words: str) -> None:
    command = [*SEARCH, "--evaluator", "ray", "--set", f"evaluator.address={address}"]
    done = subprocess.run([*NAS, *command], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert words in error_line(done)


def test_without_ray_the_command_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(NasError, match=r"pip install 'ray>=2.60'"):
        connection.connected("localhost:1")


def test_objectives_of_time_are_refused() -> None:
    line = error_line(inline(*SEARCH, "--evaluator", "ray", "--objective", "-latency_ms", code=2))
    assert "needs --evaluator local" in line


def test_software_and_hardware_are_compared() -> None:
    node = {**software(), "processor": "avx avx2", "gpu": ""}
    assert differences([("a", node), ("b", node)]) == ""
    old = {**node, "torch": "1.0"}
    assert "this machine and the node b differ in torch" in differences([("a", node), ("b", old)])
    found = differences([("a", node), ("b", {**node, "processor": "avx avx2 avx512f"})])
    assert found == "the nodes a and b differ in the processor (nothing more and avx512f)"
    assert "differ in the GPU (none and A)" in differences([("a", node), ("b", {**node, "gpu": "A"})])
