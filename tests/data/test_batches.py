import numpy as np
import torch

from mnist_accel.data.batches import InputPipeline
from mnist_accel.data.digits import Digits


def test_a_batch_is_the_chosen_images_normalised() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)
    pipeline = InputPipeline(Digits(images, np.arange(50)), torch.device("cpu"), torch.float32)
    batch, labels = pipeline.batch(torch.tensor([7, 3, 3]))
    assert batch.shape == (3, 1, 28, 28)
    assert labels.tolist() == [7, 3, 3]
    expected = (images[[7, 3, 3]].astype(np.float64) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(batch.squeeze(1).numpy(), expected, atol=1e-6)
