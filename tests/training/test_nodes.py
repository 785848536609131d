"""Training on two machines, each of which has an agent of torchrun: here both are this one."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from processes import free_port
from training.cases import make_images, plain
from vision_longformer.training.trainer import train

pytestmark = [pytest.mark.process, pytest.mark.long]
EPOCHS = 100
MINUTES = 8
RECIPE = plain(schedule={"epochs": EPOCHS}, optimizer={"name": "sgd", "learning_rate": 0.02, "clip_norm": None})


class Agents:
    """Starts agents, as somebody would on each machine, and ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.running = folder, free_port(), list[subprocess.Popen[bytes]]()

    def start(self) -> subprocess.Popen[bytes]:
        """Start one as the page of many machines says; the first is where the others find each other."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc_per_node=1"]
        torchrun += ["--max-restarts=3", "--rdzv-id=test", "--rdzv-backend=c10d", "--local-addr=127.0.0.1"]
        torchrun += [f"--rdzv-endpoint=127.0.0.1:{self.port}", "--rdzv-conf=last_call_timeout=20"]
        vil = ["-m", "vil", "train", "--recipe", "recipe.yaml", "--data", "data", "--output", "run"]
        number = len(self.running)
        with (self.folder / f"agent-{number}.log").open("wb") as log:
            agent = subprocess.Popen(
                [*torchrun, *vil],
                cwd=self.folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append(agent)
        if number == 0:
            self._wait_for_port()
        return agent

    def kill(self, agent: subprocess.Popen[bytes]) -> None:
        """End an agent and its processes, as a machine that loses power ends."""
        os.killpg(agent.pid, signal.SIGKILL)
        agent.wait()

    def log(self, number: int) -> str:
        """Return what an agent and its process said."""
        return (self.folder / f"agent-{number}.log").read_text(errors="replace")

    def _wait_for_port(self) -> None:
        for _ in range(10 * 60):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise TimeoutError(self.log(0))


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    make_images(tmp_path / "data")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(RECIPE)))))
    started = Agents(tmp_path)
    yield started
    for agent in started.running:
        if agent.poll() is None:
            started.kill(agent)


def losses(run: Path) -> dict[int, float]:
    """Return the loss of each step."""
    file = run / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def wait_for(step: int, agents: Agents) -> None:
    deadline = time.monotonic() + 60 * MINUTES
    while max(losses(agents.folder / "run"), default=0) < step:
        assert time.monotonic() < deadline, agents.log(0)
        time.sleep(0.2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the losses of one process."""
    folder = tmp_path_factory.mktemp("alone")
    for _ in train(RECIPE, data=make_images(folder / "data"), output=folder / "run"):
        pass
    return losses(folder / "run")


def assert_as_alone(found: dict[int, float], alone: dict[int, float]) -> None:
    assert found.keys() == alone.keys()
    assert len(alone) == 4 * EPOCHS
    for step, loss in alone.items():
        assert found[step] == pytest.approx(loss, abs=1e-2), step


def test_training_goes_on_after_a_machine_died_and_when_another_joins(agents: Agents, alone: dict[int, float]) -> None:
    first, second = agents.start(), agents.start()
    wait_for(5, agents)
    agents.kill(second)
    wait_for(max(losses(agents.folder / "run")) + 8, agents)
    third = agents.start()
    for agent in (first, third):
        assert agent.wait(timeout=60 * MINUTES) == 0, agents.log(0) + agents.log(2)
    assert "2 processes" in agents.log(0)
    assert_as_alone(losses(agents.folder / "run"), alone)
