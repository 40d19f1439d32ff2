"""The reference training run for your hardware: one Accelerate loop that trains, evaluates and checks its results.

    from mnist_accel import TrainConfig, train
    result = train(TrainConfig(epochs=1))

The public names are listed in `__init__.pyi`. Each is imported when it is first used, so that the command line can
answer without torch.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
