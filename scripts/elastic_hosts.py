"""Train on simulated hosts that die, freeze and join, and compare the losses with those of an uninterrupted run.

    sudo python scripts/elastic_hosts.py --scenarios 50 --results elastic.jsonl

The hosts are Linux network and process namespaces on one machine, joined by a bridge; they share the output folder.
Each has its own torchrun (`--nnodes 1:4`). A scenario starts two or three hosts. Then one or two events follow at
random times: a host is killed or frozen, another one is added, or the first one, at which all meet, is killed; then the
others must leave by themselves, and start again without it. The run must end by itself with the float64 losses of an
uninterrupted run, equal in 12 digits, so that each sample was trained on once per epoch.

Needs root and iproute2. With `--results`, each scenario becomes a line of JSON there, and a later call continues. The
last line of stdout is a JSON object about all scenarios; the exit code is 1 if any differs.
"""

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from scripts.evidence import Evidence, add_options, small_mnist

HOSTS, MOST_HOSTS = 6, 4
"""A host that joins has a new address: to torchrun, the same address and process number are the dead launcher."""
NETWORK, PORT = "10.231.77", 29577
LIMIT_SECONDS = 240
EVENTS = ("kill", "freeze", "add", "kill first")
RUN: tuple[str, ...] = ("train", "--train-samples", "800", "--epochs", "3", "--batch-size", "40", "--threads", "1")
RUN += ("--cpu", "--checkpoint-every", "2", "--timeout", "10", "--resume", "auto")
DIGITS = 1e-12


class Cluster:
    """Simulated hosts and the launchers that run on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, folder / "run"
        self.launchers: dict[int, subprocess.Popen[bytes]] = {}
        self.frozen: set[int] = set()
        self.round = self.used = self.first = 0
        recipe = folder / "float64.toml"
        recipe.write_text('dtype = "float64"\ndropout = 0.0\nmodel = "small-cnn"\n')
        data = small_mnist(folder / "mnist")
        self.command = ["-m", "mnist_accel", *RUN, "--dataset", data, "--recipe", str(recipe)]
        self.command += ["--output-dir", str(self.output)]

    def start(self, host: int) -> None:
        """Start torchrun on a host, in process and network namespaces of its own."""
        self.used = max(self.used, host + 1)
        meeting = (
            f"is_host={int(host == self.first)},last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3"
        )
        endpoint = f"{NETWORK}.{self.first + 1}:{PORT + self.round}"
        launcher = ["-m", "torch.distributed.run", "--nnodes", f"1:{MOST_HOSTS}", "--max-restarts", "20"]
        launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", str(self.round)]
        launcher += ["--rdzv-conf", meeting, "--local-addr", f"{NETWORK}.{host + 1}"]
        environment = os.environ | {"GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}
        environment |= {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "2", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        isolation = ["ip", "netns", "exec", name(host), "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (self.folder / f"host-{host}.log").open("ab") as log:
            command = [*isolation, sys.executable, *launcher, *self.command]
            self.launchers[host] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def send(self, host: int, number: int) -> None:
        """Send a signal to all processes of a host. A frozen host stays in its namespaces."""
        launcher = psutil.Process(self.launchers[host].pid)
        for process in [*launcher.children(recursive=True), launcher]:
            process.send_signal(number)
        if number == signal.SIGKILL:
            self.launchers.pop(host).wait()
        else:
            self.frozen.add(host)

    def start_again_without_first(self) -> None:
        """Kill the first host, wait until the others have left by themselves, and start them again."""
        for host in [self.first, *self.frozen]:  # a frozen host cannot leave
            self.send(host, signal.SIGKILL)
        self.frozen.clear()
        others = sorted(self.launchers) or [self.used]
        for launcher in self.launchers.values():
            launcher.wait(LIMIT_SECONDS)
        self.launchers.clear()
        self.round, self.first = self.round + 1, others[0]
        for host in others:
            self.start(host)

    def kill_all(self) -> None:
        """End all hosts."""
        for host in list(self.launchers):
            if self.launchers[host].poll() is None:
                self.send(host, signal.SIGKILL)
        self.launchers.clear()

    def steps(self) -> int:
        """Optimizer steps of the last checkpoint, or -1."""
        log = self.output / "metrics.partial.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        return max((json.loads(line).get("steps", -1) for line in lines), default=-1)

    def is_finished(self) -> bool:
        return (self.output / "mnist_cnn_model.json").exists()

    def wait_for_steps(self, steps: int) -> float:
        """Seconds until a checkpoint of at least so many steps, or the end of the run."""
        began = time.monotonic()
        while self.steps() < steps and not self.is_finished():
            if time.monotonic() - began > LIMIT_SECONDS:
                raise TimeoutError(f"no step {steps} in {LIMIT_SECONDS} s")
            time.sleep(0.05)
        return time.monotonic() - began


def name(host: int) -> str:
    """The network namespace of a host."""
    return f"mnist{os.getpid() % 10000}h{host}"


def connect_hosts() -> None:
    """Create the network namespaces and the bridge between them."""
    bridge = f"mnist{os.getpid() % 10000}"
    commands = [f"ip link add {bridge} type bridge", f"ip link set {bridge} up"]
    for host in range(HOSTS):
        space, port = name(host), f"{name(host)}p"
        commands += [f"ip netns add {space}", f"ip link add {port} type veth peer name eth0 netns {space}"]
        commands += [f"ip link set {port} master {bridge}", f"ip link set {port} up"]
        commands += [f"ip -n {space} addr add {NETWORK}.{host + 1}/24 dev eth0"]
        commands += [f"ip -n {space} link set eth0 up", f"ip -n {space} link set lo up"]
    for command in commands:
        subprocess.run(command.split(), check=True)


def disconnect_hosts() -> None:
    """Remove what `connect_hosts` has created."""
    for host in range(HOSTS):
        subprocess.run(["ip", "netns", "del", name(host)], check=False)
    subprocess.run(["ip", "link", "del", f"mnist{os.getpid() % 10000}"], check=False)


def happen(event: str, cluster: Cluster, generator: random.Random) -> str:
    """Let an event happen; what happened, or "" where the event is not possible."""
    others = sorted(set(cluster.launchers) - cluster.frozen - {cluster.first})
    if event in ("kill", "freeze") and others:
        host = generator.choice(others)
        cluster.send(host, signal.SIGKILL if event == "kill" else signal.SIGSTOP)
        return f"{event} host {host}"
    if event == "add" and len(cluster.launchers) < MOST_HOSTS and cluster.used < HOSTS:
        cluster.start(cluster.used)
        return f"add host {cluster.used - 1}"
    if event == "kill first":
        cluster.start_again_without_first()
        return "kill the first host"
    return ""


def scenario(number: int, seed: int, expected: list[float]) -> dict[str, object]:
    """Run one scenario: its events, the seconds from each to the next new step, and whether the losses agree."""
    generator = random.Random(f"{seed}-{number}")
    with tempfile.TemporaryDirectory() as scratch:
        cluster, happened, error = Cluster(Path(scratch)), [], ""
        hosts = generator.choice((2, 3))
        try:
            for host in range(hosts):
                cluster.start(host)
            for _ in range(generator.choice((1, 2))):
                cluster.wait_for_steps(cluster.steps() + 2 + 2 * generator.randrange(5))
                if cluster.is_finished():
                    break
                began, steps = time.monotonic(), cluster.steps()
                if what := happen(generator.choice(EVENTS), cluster, generator):
                    cluster.wait_for_steps(steps + 2)
                    happened.append({"event": what, "seconds_to_next_step": round(time.monotonic() - began, 1)})
            cluster.wait_for_steps(sys.maxsize)
            same = agrees(losses(cluster.output), expected)
        except (TimeoutError, subprocess.TimeoutExpired) as problem:
            same, error = False, str(problem)
        finally:
            cluster.kill_all()
        log = "" if same else "\n".join(path.read_text()[-3000:] for path in sorted(Path(scratch).glob("host-*.log")))
    found: dict[str, object] = {"hosts": hosts, "events": happened, "same_losses": same}
    return found if same else found | {"error": error, "log": log}


def losses(output: Path) -> list[float]:
    """Training and test loss of each epoch."""
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [record[key] for record in records for key in ("train_loss", "test_loss")]


def agrees(found: list[float], expected: list[float]) -> bool:
    """Whether the losses are equal in 12 digits."""
    return len(found) == len(expected) and all(
        abs(one - other) <= DIGITS * abs(other) for one, other in zip(found, expected, strict=True)
    )


def summary(scenarios: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all scenarios: how many agree, and for each event the seconds until the next new step."""
    seconds: dict[str, list[float]] = {}
    for one in scenarios:
        for event in one["events"]:
            seconds.setdefault(re.sub(r" host \d+$", "", event["event"]), []).append(event["seconds_to_next_step"])
    table = {
        event: {"n": len(found), "median": statistics.median(found), "lowest": min(found), "highest": max(found)}
        for event, found in seconds.items()
    }
    same = sum(bool(one["same_losses"]) for one in scenarios)
    return {"scenarios": len(scenarios), "same_losses": same, "seconds_to_next_step": table}


def main() -> None:
    """Create the hosts, run the scenarios, and remove the hosts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", type=int, default=50, help="scenarios to add")
    add_options(parser)
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root: sudo python scripts/elastic_hosts.py")
    evidence = Evidence(options.results)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Cluster(Path(scratch))
        subprocess.run([sys.executable, *whole.command, "--quiet"], check=True)
        expected = losses(whole.output)
    try:
        connect_hosts()
        for number in evidence.numbers(options.scenarios, options.minutes):
            evidence.add(trial=number, **scenario(number, options.seed, expected))
    finally:
        disconnect_hosts()
    print(json.dumps(found := summary(evidence.trials())))
    raise SystemExit(found["same_losses"] != found["scenarios"])


if __name__ == "__main__":
    main()
