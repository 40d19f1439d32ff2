"""Train on two simulated hosts and compare the weights with those of one host with two processes.

    sudo python scripts/two_hosts.py

The hosts are two network namespaces on one Linux machine, joined by a virtual network cable. Each has its own torchrun.
Needs root and iproute2. Prints one JSON object; the exit code is 1 where any process has other weights.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HOSTS = ("10.231.77.1", "10.231.77.2")
PORT = 29577
SETTINGS = ("--nnodes", "2", "--nproc-per-node", "1", "--master-addr", HOSTS[0], "--master-port", str(PORT))


def work(folder: Path) -> None:
    """Run in each process: train and record the hash of this process' own weights."""
    from mnist_accel import TrainConfig, train  # imports torch, which --help need not wait for

    result = train(
        TrainConfig(dataset="mnist", train_samples=1000, epochs=2, cpu=True, threads=1, output_dir=folder / "run")
    )
    rank = os.environ["RANK"]
    (folder / f"rank-{rank}.json").write_text(
        json.dumps({"world_size": result.world_size, "weights_sha256": result.weights_sha256})
    )


def outcomes(folder: Path) -> list[dict[str, object]]:
    """The records of the two processes."""
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def environment(interface: str) -> dict[str, str]:
    """A launcher's environment. Gloo must use this interface; the host's own name may resolve to the loopback."""
    return dict(os.environ) | {"GLOO_SOCKET_IFNAME": interface, "OMP_NUM_THREADS": "1"}


def one_host(folder: Path) -> list[dict[str, object]]:
    """Train in two processes on this host."""
    folder.mkdir()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launcher, __file__, "--worker", str(folder)], check=True, env=environment("lo"), timeout=300)
    return outcomes(folder)


def two_hosts(folder: Path, names: list[str]) -> list[dict[str, object]]:
    """Train in one process on each host."""
    folder.mkdir()
    launcher = [sys.executable, "-m", "torch.distributed.run", *SETTINGS]
    running = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, *launcher, "--node-rank", str(rank), __file__, "--worker", str(folder)],
            env=environment(f"{name}-eth"),
        )
        for rank, name in enumerate(names)
    ]
    codes = [process.wait(300) for process in running]
    if codes != [0, 0]:
        raise SystemExit(f"the hosts ended with {codes}")
    return outcomes(folder)


def connect_hosts(names: list[str]) -> None:
    """Create the network namespaces and the cable between them."""
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)
    ends = [f"{name}-eth" for name in names]
    cable = f"link add {ends[0]} netns {names[0]} type veth peer name {ends[1]} netns {names[1]}"
    subprocess.run(["ip", *cable.split()], check=True)
    for name, end, address in zip(names, ends, HOSTS, strict=True):
        for command in (f"addr add {address}/24 dev {end}", f"link set {end} up", "link set lo up"):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)


def main() -> None:
    """Create the hosts, run, compare, and remove the hosts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root: sudo python scripts/two_hosts.py")
    names = [f"mnist{os.getpid() % 10000}{side}" for side in "ab"]
    try:
        connect_hosts(names)
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
