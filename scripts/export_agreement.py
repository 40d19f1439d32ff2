"""Compare exported files, read by other programs, with the original weights.

    python scripts/export_agreement.py --weights mnist_cnn_model.pth --dataset mnist

onnxruntime runs the .onnx file, torch.export.load the .pt2 file; the tensors of the .safetensors file go into a new
model. Prints one JSON object: for each format, on how many of the test images the most probable class is the same, and
the largest difference of a probability.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import safetensors.torch
import torch

from mnist_accel.data import datasets as data
from mnist_accel.export.write import export
from mnist_accel.files.exported import FORMATS
from mnist_accel.models import architectures as models
from mnist_accel.models import classifier
from mnist_accel.models.classifier import Classifier
from mnist_accel.training.events import Observer

Images = npt.NDArray[np.uint8]
BATCH_SIZE = 250


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("mnist_cnn_model.pth"))
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--half", action="store_true", help="export float16 weights")
    options = parser.parse_args()
    images = data.load(options.dataset, options.data_dir, Observer().notice).test.images
    with tempfile.TemporaryDirectory() as folder:
        print(
            json.dumps(
                {"dataset": options.dataset} | agreement(options.weights, images, Path(folder), half=options.half)
            )
        )


def agreement(weights: Path, images: Images, folder: Path, *, half: bool = False) -> dict[str, Any]:
    """Export into `folder` in every format, and compare with the original on uint8 images (N, 28, 28)."""
    original = classifier.load(weights, torch.device("cpu"))
    expected = original.probabilities(images)
    results: dict[str, Any] = {"samples": len(images)}
    for name, kind in FORMATS.items():
        path = folder / f"exported{kind.suffix}"
        export(weights, name, path, half=half)
        parts = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
        found = np.concatenate(READERS[name](path, parts, original))
        results[name] = {
            "same_predictions": int((found.argmax(axis=1) == expected.argmax(axis=1)).sum()),
            "largest_difference": float(np.abs(found - expected).max()),
        }
    return results


def _run_onnx(path: Path, parts: list[Images], _: Classifier) -> list[Any]:
    session = onnxruntime.InferenceSession(path)
    return [session.run(None, {"images": part})[0] for part in parts]


@torch.inference_mode()
def _run_pt2(path: Path, parts: list[Images], _: Classifier) -> list[Any]:
    program = torch.export.load(path).module()
    return [program(torch.tensor(part)).numpy() for part in parts]


@torch.inference_mode()
def _run_safetensors(path: Path, parts: list[Images], original: Classifier) -> list[Any]:
    assert original.architecture is not None
    model = models.build(original.architecture, classes=len(original.class_names)).eval()
    model.load_state_dict(safetensors.torch.load_file(path))
    pixels = [torch.tensor(part).unsqueeze(1).float() / 255 for part in parts]
    return [model((part - 0.1307) / 0.3081).softmax(dim=1).numpy() for part in pixels]  # as the metadata says


READERS = {"onnx": _run_onnx, "torch-export": _run_pt2, "safetensors": _run_safetensors}

if __name__ == "__main__":
    main()
