"""Starts the local processes of `--processes N` with torch's elastic launcher, and restarts them after a crash."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from mnist_accel.errors import EXIT_BUG, EXIT_LOST, LaunchError, UserError
from mnist_accel.files.checkpoint import FOLDER, CheckpointFolder
from mnist_accel.hardware import accelerator, cores


def run_processes(processes: int, arguments: Sequence[str], *, on_cpu: bool, output_dir: Path, restarts: int) -> int:
    """Run `python -m mnist_accel ARGUMENTS` in `processes` processes, and return their exit code.

    After a crash they are restarted up to `restarts` times, from the newest checkpoint that this run has saved.
    Raises LaunchError if a process was killed by a signal, and no restart is left.
    """
    gpus = 0 if on_cpu else accelerator.gpu_count()
    limit, unit, advice = (gpus, "GPU", ", or add --cpu") if gpus else (cores.available_cores(), "core", "")
    if processes > limit:
        here = f"this machine has {limit} {unit}{'s' if limit > 1 else ''}"
        raise UserError(f"--processes {processes}: {here}", f"give at most {limit}{advice}")
    folder = CheckpointFolder(output_dir / FOLDER)
    earlier = folder.numbered()
    for restart in range(restarts + 1):
        code = _run_once(processes, arguments)
        if code >= 0 and code not in (EXIT_BUG, EXIT_LOST):
            return code
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        if restart < restarts:
            print(f"mnist-accel: a process {how}; starting again ({restart + 1} of {restarts})", file=sys.stderr)
            if folder.numbered()[-1:] != earlier[-1:]:  # checkpoints of another run would be refused
                arguments = [*arguments, "--resume", "auto"]
    if code < 0:
        advice = "if nobody did that, check whether the machine ran out of memory; continue with --resume auto"
        raise LaunchError(f"a process {how}", advice)
    return code


def _run_once(processes: int, arguments: Sequence[str]) -> int:
    """The exit code of the process that failed first. Negative: the number of the signal that killed it."""
    logging.disable(logging.ERROR)  # the launcher's reports: the processes report their errors themselves
    # Otherwise the launcher sets it to 1 and prints a warning. Every process sets its number of threads itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "5")  # seconds that a frozen process delays the end
    # --standalone chooses a free port, so that two runs on one machine do not meet.
    command = ["--standalone", f"--nproc-per-node={processes}", "--module", "mnist_accel", *arguments]
    try:
        run(parse_args(command))
    except ChildFailedError as error:
        codes = [int(failure.exitcode) for failure in error.failures.values()]
        # Processes that a frozen one has kept waiting kill it and end with EXIT_LOST.
        return EXIT_LOST if EXIT_LOST in codes else int(error.get_first_failure()[1].exitcode)
    except SignalException as stop:
        # Processes that still run have not reacted to the signal, or the user has pressed Ctrl-C again.
        for child in psutil.Process().children(recursive=True):
            child.kill()
        return 128 + int(stop.sigval)
    return 0
