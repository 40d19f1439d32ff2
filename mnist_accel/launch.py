"""Local processes for `--processes N`, started by torch's own elastic launcher."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from mnist_accel.errors import LaunchError, UserError


def run_processes(processes: int, arguments: Sequence[str], *, on_cpu: bool) -> int:
    """Run `python -m mnist_accel ARGUMENTS` in `processes` processes; the exit code that they agree on.

    The code is that of the first process that failed, so a refusal (2) or a missed target (3) stays what it is.

    Raises:
        UserError: this machine has fewer accelerators.
        LaunchError: a process was killed by a signal.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    from mnist_accel.hardware import gpu_count

    gpus = 0 if on_cpu else gpu_count()
    if gpus and processes > gpus:
        raise UserError(
            f"--processes {processes}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}",
            f"give at most {gpus}, or add --cpu",
        )
    # The processes say themselves what is wrong; torch's own report of that would be a second voice.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # Else the launcher sets it to 1 and says so; every process sets its number of threads itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # standalone: a free port of its own, so that two runs on a machine do not meet
    command = ["--standalone", f"--nproc-per-node={processes}", "--module", "mnist_accel", *arguments]
    try:
        run(parse_args(command))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise LaunchError(
                f"process {rank} of {processes} was killed by signal {-failure.exitcode}",
                "if nobody did that, see whether the machine ran out of memory",
            ) from None
        return int(failure.exitcode)
    return 0
