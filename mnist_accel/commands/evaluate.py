"""`mnist-accel evaluate`."""

import dataclasses

from mnist_accel.commands.common import JsonOption, print_json
from mnist_accel.config.settings import EvaluateConfig
from mnist_accel.hardware.cores import launched_rank


def evaluate(config: EvaluateConfig, json: JsonOption = False) -> int:
    """Test saved weights: accuracy with confidence interval, figures per class, confusion matrix, worst mistakes.

    For example:
      mnist-accel evaluate --weights mnist_cnn_model.pth
      mnist-accel evaluate --weights other.pth --dataset mnist --mixed-precision no --json
    """
    from mnist_accel import api
    from mnist_accel.reports.console import TrainingConsole, result_console, stderr_console
    from mnist_accel.reports.tables import print_report
    from mnist_accel.training.events import Observer

    is_main = launched_rank() == 0
    progress = TrainingConsole(stderr_console())
    for text in config.warnings() if is_main else ():
        progress.notice(text)
    try:
        result = api.evaluate(config, progress if is_main else Observer())
    finally:
        progress.close()
    if is_main:
        print_report(result_console(to_stderr=json), result, [config.output_dir / name for name in api.EVALUATE_FILES])
        if json:
            print_json(dataclasses.asdict(result))
    return 0
