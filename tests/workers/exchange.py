"""Run by one or more processes: trains a few steps; prints how gradients were exchanged, the losses and the weights.

Arguments: a JSON object with
    speedups: the switch of mnist_accel/speed.
    layout: false: without oneDNN's layout.
    obstacle: what keeps shared memory from the processes: "elsewhere", "no room" or "forbidden".
"""

import hashlib
import json
import os
import resource
import sys

import torch
from torch.nn.functional import cross_entropy

from mnist_accel import speed
from mnist_accel.hardware import accelerator, peers
from mnist_accel.models import architectures
from mnist_accel.speed import shared_memory

STEPS, BATCH_SIZE = 8, 24


def main(speedups: bool, layout: bool = True, obstacle: str = "") -> None:
    rank = int(os.environ.get("RANK", "0"))
    hardware = accelerator.start_hardware(cpu=True, mixed_precision="no", threads=1, timeout=60, speedups=speedups)
    if obstacle == "elsewhere" and rank == 0:
        os.getpid = lambda: 1  # as another machine's process numbers, it names an unrelated process here
    if obstacle == "no room":
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
    if obstacle == "forbidden" and rank == 1:
        shared_memory.SharedMemory = _forbidden  # type: ignore[assignment,misc]
    torch.manual_seed(0)
    plain = architectures.build("cnn")
    speed.prepare_model(plain, hardware.device, speedups and layout)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-4)
    model = hardware.accelerator.prepare(plain)
    images, labels = torch.rand(STEPS, BATCH_SIZE, 1, 28, 28), torch.randint(0, 10, (STEPS, BATCH_SIZE))
    share = slice(rank, None, hardware.world_size)
    layouts: set[bool] = set()
    plain.get_submodule("features.0").register_forward_hook(lambda *call: layouts.add(call[2].is_mkldnn))
    exchange = "none"
    if hardware.world_size > 1:
        exchange = speed.prepare_exchange(model, images[0, share], 60, speedups)
        optimizer.zero_grad()
    model.train()
    layouts.clear()
    losses = []
    for step in range(STEPS):
        loss = cross_entropy(model(images[step, share]), labels[step, share])
        hardware.accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    weights = b"".join(tensor.numpy().tobytes() for tensor in plain.state_dict().values())
    if hardware.is_main:
        checksum = hashlib.sha256(weights).hexdigest()
        print(json.dumps({"exchange": exchange, "layouts": [*layouts], "losses": losses, "weights": checksum}))
    peers.leave()
    sys.stdout.flush()
    os._exit(0)


def _forbidden(*_: object) -> None:
    raise PermissionError


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
