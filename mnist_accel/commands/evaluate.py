from contextlib import closing

from mnist_accel.commands.common import JsonOption, finish
from mnist_accel.config.settings import EvaluateConfig
from mnist_accel.hardware.cores import launched_rank


def evaluate(config: EvaluateConfig, json: JsonOption = False) -> int:
    """Test saved weights: accuracy with confidence interval, figures per class, confusion matrix, worst mistakes.

    For example:
      mnist-accel evaluate --weights mnist_cnn_model.pth
      mnist-accel evaluate --weights other.pth --dataset mnist --mixed-precision no --json
    """
    from mnist_accel import api
    from mnist_accel.reports.console import TrainingConsole
    from mnist_accel.reports.tables import print_report, result_console

    is_main = launched_rank() == 0
    with closing(TrainingConsole(result_console(to_stderr=True))) as progress:
        result = api.evaluate(config, progress if is_main else None)
    if is_main:
        print_report(result_console(to_stderr=json), result, [config.output_dir / name for name in api.EVALUATE_FILES])
    return finish(result, json=json and is_main)
