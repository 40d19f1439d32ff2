"""Two hosts on one Linux machine: two network namespaces joined by a cable, each with its own launcher, over TCP.

    sudo python scripts/two_hosts.py

Trains on both hosts together, each under its own torchrun, and checks that both end with the same weights, and that
these are those of one host with two processes. Needs root and iproute2. Prints one JSON object; exit code 1 where
anything differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mnist_accel import TrainConfig, train

HOSTS = ("10.231.77.1", "10.231.77.2")
PORT = 29577
SETTINGS = ("--nnodes", "2", "--nproc-per-node", "1", "--master-addr", HOSTS[0], "--master-port", str(PORT))


def work(folder: Path) -> None:
    """On each process: train, and write down the hash of this process' own weights."""
    result = train(
        TrainConfig(dataset="mnist-5k", train_samples=1000, epochs=2, cpu=True, threads=1, output_dir=folder / "run")
    )
    rank = os.environ["RANK"]
    (folder / f"rank-{rank}.json").write_text(
        json.dumps({"world_size": result.world_size, "weights_sha256": result.weights_sha256})
    )


def outcomes(folder: Path) -> list[dict[str, object]]:
    """What the two processes wrote down."""
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def environment(interface: str) -> dict[str, str]:
    """For a launcher: Gloo must not take the loopback that the host's own name may stand for."""
    return dict(os.environ) | {"GLOO_SOCKET_IFNAME": interface, "OMP_NUM_THREADS": "1"}


def one_host(folder: Path) -> list[dict[str, object]]:
    """Two processes on this host."""
    folder.mkdir()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launcher, __file__, str(folder)], check=True, env=environment("lo"), timeout=300)
    return outcomes(folder)


def two_hosts(folder: Path, names: list[str]) -> list[dict[str, object]]:
    """One process on each host."""
    folder.mkdir()
    launcher = [sys.executable, "-m", "torch.distributed.run", *SETTINGS]
    running = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, *launcher, "--node-rank", str(rank), __file__, str(folder)],
            env=environment(f"{name}-eth"),
        )
        for rank, name in enumerate(names)
    ]
    codes = [process.wait(300) for process in running]
    if codes != [0, 0]:
        raise SystemExit(f"the hosts ended with {codes}")
    return outcomes(folder)


def main() -> None:
    """Build the hosts, run, compare, and take the hosts away again."""
    if len(sys.argv) > 1:
        work(Path(sys.argv[1]))
        return
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root: sudo python scripts/two_hosts.py")
    names = [f"mnist{os.getpid() % 10000}{side}" for side in "ab"]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        ends = [f"{name}-eth" for name in names]
        subprocess.run(
            [
                "ip",
                "link",
                "add",
                ends[0],
                "netns",
                names[0],
                "type",
                "veth",
                "peer",
                "name",
                ends[1],
                "netns",
                names[1],
            ],
            check=True,
        )
        for name, end, address in zip(names, ends, HOSTS, strict=True):
            for command in (
                ("addr", "add", f"{address}/24", "dev", end),
                ("link", "set", end, "up"),
                ("link", "set", "lo", "up"),
            ):
                subprocess.run(["ip", "-n", name, *command], check=True)
        with tempfile.TemporaryDirectory() as scratch:
            single = one_host(Path(scratch) / "single")
            double = two_hosts(Path(scratch) / "double", names)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)
    hashes = {str(found["weights_sha256"]) for found in (*single, *double)}
    sizes = {found["world_size"] for found in (*single, *double)}
    same = len(hashes) == 1 and sizes == {2}
    print(json.dumps({"same_weights": same, "world_sizes": sorted(sizes, key=str), "weights_sha256": sorted(hashes)}))
    raise SystemExit(not same)


if __name__ == "__main__":
    main()
