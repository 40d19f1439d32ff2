from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import JsonOption, finish
from mnist_accel.config.settings import TrainConfig, settings

SKIP_DAMAGED = settings(TrainConfig)["skip_damaged"].meaning


def data(
    name: Annotated[str, typer.Argument(help="Data set, as for train --dataset.")],
    data_dir: Annotated[Path, typer.Option(help="Folder of the data sets.")] = Path("data"),
    skip_damaged: Annotated[bool, typer.Option("--skip-damaged", help=SKIP_DAMAGED)] = False,
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
    from mnist_accel.files.atomic import publish
    from mnist_accel.reports import data_summary
    from mnist_accel.reports.console import TrainingConsole
    from mnist_accel.reports.tables import print_facts, print_files, print_line, print_rows, result_console

    with closing(TrainingConsole(result_console(to_stderr=True))) as screen:
        heard = screen.notice, screen.pictures_read
        dataset = datasets.load(config.dataset, config.data_dir, *heard, skip_damaged=skip_damaged)
    found = data_summary.summarise(dataset)
    publish({output: data_summary.draw(dataset, found)})
    console = result_console(to_stderr=json)
    print_line(console, f"{found.dataset}: {len(found.classes)} classes")
    inside = f"{found.train_duplicates:,} within the training part, {found.test_duplicates:,} within the test part"
    facts = {
        "source": found.source,
        "pixels": f"mean {found.mean:.3f}, standard deviation {found.std:.3f} (MNIST: 0.131, 0.308)",
        "in both": f"{len(found.in_both):,} of {found.test_samples:,} test images are also training images",
        "duplicates": f"{inside}; {found.contradictions:,} images have another label where they occur first",
    }
    print_facts(console, facts)
    total = {"class": "all", "train": found.train_samples, "test": found.test_samples}
    rows = [(row["class"], f"{row['train']:,}", f"{row['test']:,}") for row in [*found.classes, total]]
    print_rows(console, ("class", "training", "test"), rows)
    print_files(console, [output])
    return finish(found, json=json)
