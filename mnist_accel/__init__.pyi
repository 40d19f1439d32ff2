from .api import evaluate as evaluate
from .api import find_learning_rate as find_learning_rate
from .api import predict as predict
from .api import train as train
from .config.settings import EvaluateConfig as EvaluateConfig
from .config.settings import TrainConfig as TrainConfig
from .errors import UserError as UserError
from .groups import train_group as train_group
from .pictures.predict import PictureResult as PictureResult
from .reports.comparison import compare as compare
from .reports.run_report import report as report
from .reports.runs import Group as Group
from .reports.runs import Run as Run
from .training.evaluate import EvaluateResult as EvaluateResult
from .training.train import TrainResult as TrainResult

__version__: str
__all__: list[str]
