"""Three raylets on one machine through ``ray.cluster_utils.Cluster``, in a process that owns them.

The process takes one word a line on standard input (``kill N``, ``heal``, ``end``) and answers with a line of JSON:
``{"address": …, "raylets": [pid, …]}``, the head's first. It ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NODES = 3
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
ANSWER = "cluster: "


class LocalCluster:
    """The cluster as its user sees it, from another process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        # Short, because sockets live below it; and not where a Ray of somebody else looks for a cluster to join.
        self._folder = Path(tempfile.mkdtemp(prefix="tp-chaos-", dir="/tmp"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.cluster"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(self._folder / "cluster.err", "wb"),  # noqa: SIM115 (the child's)
            env={**environment, **QUIET, "RAY_TMPDIR": str(self._folder)},
            text=True,
            start_new_session=True,
        )
        self.address, self.raylets = "", []
        self._read()

    def kill(self, node: int) -> int:
        """End a raylet with -9; 0 is the head's. Returns its process id."""
        pid = int(self.raylets[node])
        self._ask(f"kill {node}")
        return pid

    def heal(self) -> None:
        """Bring the killed raylets back; after the head's that is another cluster, at another address."""
        self._ask("heal")

    def end(self) -> None:
        """End every process of it."""
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(words + "\n")
        self._process.stdin.flush()
        self._read()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                answer = json.loads(line.removeprefix(ANSWER))
                self.address, self.raylets = answer["address"], answer["raylets"]
                return
        raise RuntimeError(f"the cluster ended: {(self._folder / 'cluster.err').read_text()[-2000:]}")


class _Owner:
    """Starts, kills and heals the nodes."""

    def __init__(self) -> None:
        self._start()

    def kill(self, at: int) -> None:
        pid = self._raylet(self.nodes[at])
        os.kill(pid, signal.SIGKILL)
        self.nodes[at].all_processes["raylet"][0].process.wait()
        self.dead.append(self.nodes[at])

    def heal(self) -> None:
        if self.nodes[0] in self.dead:
            self.end()
            self._start()
            return
        for node in self.dead:
            self.cluster.remove_node(node, allow_graceful=False)
            self.nodes[self.nodes.index(node)] = self.cluster.add_node(node_ip_address="127.0.0.1", **_arguments())
        self.dead = []

    def end(self) -> None:
        for node in [*self.nodes[1:], self.nodes[0]]:
            with contextlib.suppress(Exception):
                node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)

    def state(self) -> dict[str, Any]:
        alive = {id(node): self._raylet(node) for node in self.nodes if node not in self.dead}
        return {"address": self.cluster.address, "raylets": [alive.get(id(node)) for node in self.nodes]}

    def _start(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"include_dashboard": False, "node_ip_address": "127.0.0.1", **_arguments()}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.cluster.head_node]
        self.nodes += [self.cluster.add_node(node_ip_address="127.0.0.1", **_arguments()) for _ in range(NODES - 1)]
        self.dead: list[Any] = []

    @staticmethod
    def _raylet(node: Any) -> int:
        return int(node.all_processes["raylet"][0].process.pid)


def _arguments() -> dict[str, Any]:
    return {"num_cpus": 1, "object_store_memory": 80 << 20}


def _main() -> None:
    owner = _Owner()

    def answer() -> None:
        print(ANSWER + json.dumps(owner.state()), flush=True)

    answer()
    try:
        for line in sys.stdin:
            words = line.split()
            if words[0] == "kill":
                owner.kill(int(words[1]))
            elif words[0] == "heal":
                owner.heal()
            answer()
    finally:
        owner.end()


if __name__ == "__main__":
    _main()
