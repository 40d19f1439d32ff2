"""`mnist-accel data`."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import JsonOption, finish
from mnist_accel.config.settings import TrainConfig


def data(
    name: Annotated[str, typer.Argument(help="Data set, as for train --dataset.")],
    data_dir: Annotated[Path, typer.Option(help="Folder of the data sets.")] = Path("data"),
    output: Annotated[Path, typer.Option(metavar="FILE.png", help="The picture.")] = Path("data_summary.png"),
    json: JsonOption = False,
) -> int:
    """Show a data set: classes, samples, pixels, and images that occur twice; write a picture of it.

    For example:
      mnist-accel data mnist
      mnist-accel data folder:letters --output letters.png --json
    """
    config = TrainConfig(dataset=name, data_dir=data_dir)
    from mnist_accel.data import datasets
    from mnist_accel.files.atomic import write_whole
    from mnist_accel.reports import data_summary
    from mnist_accel.reports.console import TrainingConsole, result_console
    from mnist_accel.reports.tables import print_data_summary

    with closing(TrainingConsole(result_console(to_stderr=True))) as progress:
        found = datasets.load(config.dataset, config.data_dir, progress.notice, progress.pictures_read)
    summary = data_summary.summarise(found)
    write_whole(output, data_summary.draw(found, summary))
    print_data_summary(result_console(to_stderr=json), summary, output)
    return finish(summary, json=json)
