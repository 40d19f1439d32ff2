"""An exported ONNX model as a torch module."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mnist_accel.errors import WeightsError, printable

if TYPE_CHECKING:
    import onnxruntime


class OnnxModel(nn.Module):
    """The ONNX model in the bytes `content` of the file `path`, computed on the CPU in float32 by onnxruntime.

    Images uint8 (B, 1, 28, 28) → log-probabilities float32 (B, classes). Probabilities below 1e-38 count as 1e-38.
    """

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__()
        self.content, self.path = content, path

    @functools.cached_property
    def session(self) -> "onnxruntime.InferenceSession":
        """Created at the first use, because a session cannot be sent to another process."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # errors are raised
        return onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.squeeze(1).cpu().numpy()
        try:
            (probabilities,) = self.session.run(["probabilities"], {"images": pixels})
            if probabilities.ndim != 2 or len(probabilities) != len(pixels):
                raise ValueError(f"{probabilities.shape} results for {len(pixels)} images")
        except Exception as error:  # the errors of onnxruntime have no common type
            problem = f"{self.path}: not a usable model ({printable(error, 120)})"
            raise WeightsError(problem, "export it again") from error
        found = torch.from_numpy(probabilities).to(images.device, torch.float32)
        return found.clamp_min(torch.finfo(torch.float32).tiny).log()
