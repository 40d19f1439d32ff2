"""`mnist-accel train`."""

import contextlib

from mnist_accel.commands.common import JsonOption, QuietOption, configured_by, print_errors, print_json
from mnist_accel.config.settings import TrainConfig
from mnist_accel.errors import EXIT_BELOW_TARGET
from mnist_accel.hardware.cores import launched_rank


@configured_by(TrainConfig)
def train(config: TrainConfig, json: JsonOption = False, quiet: QuietOption = False) -> int:
    """Train a digit classifier and write its weights, record, metrics and pictures to the output folder.

    Options win over the recipe, and the recipe wins over the defaults.

    For example:

      mnist-accel train

      mnist-accel train --epochs 1 --train-samples 10000 --output-dir first-try

      mnist-accel train --processes 2 --target-accuracy 0.99 --json

      accelerate launch -m mnist_accel train
    """
    from mnist_accel import api
    from mnist_accel.hardware.signals import StopRequests
    from mnist_accel.reports.console import TrainingConsole, result_console, stderr_console
    from mnist_accel.reports.run_summary import headline
    from mnist_accel.training.events import Observer

    is_main = launched_rank() == 0
    console = TrainingConsole(stderr_console(), results=result_console(to_stderr=json), quiet=quiet)
    for text in config.warnings() if is_main else ():
        console.notice(text)
    try:
        stop = StopRequests(leaves_at_once=True)
        result = api.train(config, console if is_main else Observer(), stop=stop)
    finally:
        with contextlib.suppress(OSError):  # the terminal may be closed
            console.close()
    below = config.target_accuracy is not None and result.test_accuracy < config.target_accuracy
    if is_main:
        console.run_finished(headline(result), [config.output_dir / name for name in api.TRAIN_FILES])
        if below:
            print_errors([f"test accuracy {result.test_accuracy:.4f} is below the target {config.target_accuracy}"])
        if json:
            print_json(result.as_json())
    return EXIT_BELOW_TARGET if below else 0
