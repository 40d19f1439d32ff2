from __future__ import annotations

import torch

from mnist_accel import models


def test_the_cnn_has_the_published_size_and_gives_ten_logits() -> None:
    model = models.build("cnn")
    assert models.parameter_count(model) == 594_922
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)
