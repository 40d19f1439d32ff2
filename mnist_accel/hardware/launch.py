"""Local processes for `--processes N`, started by torch's own elastic launcher, and started again after a crash."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_accel.errors import EXIT_BUG, EXIT_LOST, LaunchError, UserError


def run_processes(
    processes: int, arguments: Sequence[str], *, on_cpu: bool, output_dir: Path, max_restarts: int = 0
) -> int:
    """Run `python -m mnist_accel ARGUMENTS` in `processes` processes; the exit code that they agree on.

    After a crash they are started again, at most `max_restarts` times, from the last whole checkpoint.

    Raises:
        UserError: this machine has fewer accelerators.
        LaunchError: a process was killed by a signal, and no restart is left.
    """
    from mnist_accel.files.checkpoint import FOLDER, numbered
    from mnist_accel.hardware.accelerator import gpu_count

    gpus = 0 if on_cpu else gpu_count()
    if gpus and processes > gpus:
        raise UserError(
            f"--processes {processes}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}",
            f"give at most {gpus}, or add --cpu",
        )
    for restart in range(max_restarts + 1):
        code = _run_once(processes, arguments)
        if code >= 0 and code not in (EXIT_BUG, EXIT_LOST):
            return code
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        if restart < max_restarts:
            print(f"mnist-accel: a process {how}; starting again ({restart + 1} of {max_restarts})", file=sys.stderr)
            if numbered(output_dir / FOLDER):
                arguments = [*arguments, "--resume", "auto"]
    if code < 0:
        raise LaunchError(
            f"a process {how}", "if nobody did that, see whether the machine ran out of memory; --resume auto continues"
        )
    return code


def _run_once(processes: int, arguments: Sequence[str]) -> int:
    """The exit code of the process that failed first; negative: the number of the signal that killed it."""
    import psutil
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    # The processes say themselves what is wrong; torch's own report of that would be a second voice.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    # Else the launcher sets it to 1 and says so; every process sets its number of threads itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # standalone: a free port of its own, so that two runs on a machine do not meet
    command = ["--standalone", f"--nproc-per-node={processes}", "--module", "mnist_accel", *arguments]
    try:
        run(parse_args(command))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return int(failure.exitcode)
    except SignalException as stop:
        # The launcher has passed the signal on and waited. Who is still here did not listen, or the user has
        # pressed Ctrl-C again.
        for child in psutil.Process().children(recursive=True):
            child.kill()
        return 128 + int(stop.sigval)
    return 0
