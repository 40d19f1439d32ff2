# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first run
#
# Train a classifier of handwritten digits, look at its mistakes, let it read a number that you draw, and replace the
# network by your own. Install the package first, and Jupyter: `pip install -e . jupyterlab ipywidgets`. The notebook
# takes about a minute on two CPU cores.

# %%
from IPython.display import Image
from PIL import Image as Picture
from PIL import ImageDraw

from mnist_accel import EvaluateConfig, TrainConfig, evaluate, predict, train

train_samples = 20_000  # of 60,000; None trains on all of them

# %% [markdown]
# ## Train
#
# The table grows by a line after each epoch, that is, after each pass over the training images. The loss should fall
# and the accuracy should rise. The pictures come at the end: the loss and the accuracy of each epoch, and ten test
# images with the predictions.

# %%
result = train(TrainConfig(recipe="speedrun", epochs=2, train_samples=train_samples, output_dir="first"))

# %% [markdown]
# ## Look at the mistakes
#
# `evaluate` tests the saved weights on the 10,000 test images. The 95% interval says how much the accuracy could be
# luck of the test set. `mistakes.png` shows the wrong predictions in which the network was most confident.

# %%
report = evaluate(EvaluateConfig(weights="first/mnist_cnn_model.pth", output_dir="first"))
print(f"{report.correct:,} of {report.samples:,} images are correct")
print("95% interval: {:.2%} to {:.2%}".format(*report.accuracy_ci95))
worst = min(report.per_class, key=lambda row: row["recall"])
print(f"the digit that is missed most often: {worst['class']}")
Image("first/mistakes.png")

# %% [markdown]
# ## Read your own number
#
# The cell draws a number with a pen of 12 pixels and reads it. Name the file of a photo instead to read your own
# handwriting: `predict("photo.jpg", ...)`.

# %%
paper = Picture.new("RGB", (420, 220), (245, 240, 225))
pen = ImageDraw.Draw(paper)
pen.line([(60, 50), (50, 120), (120, 120)], fill=(30, 40, 110), width=12, joint="curve")  # a 4
pen.line([(110, 70), (100, 180)], fill=(30, 40, 110), width=12)
pen.line([(190, 60), (290, 60), (230, 180)], fill=(30, 40, 110), width=12, joint="curve")  # a 7
paper.save("number.png")
[answer] = predict("number.png", weights="first/mnist_cnn_model.pth")
print("read as", answer.text)
paper

# %% [markdown]
# ## Swap the network
#
# Any `torch.nn.Module` works that is built with `classes=` and turns images (B, 1, 28, 28) into logits (B, classes). It
# has to be in a file, because checkpoints and exports refer to it.

# %%
# %%writefile my_net.py
from torch import Tensor, nn


class MyNet(nn.Module):
    """Two hidden layers, without convolutions."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


# %%
mine = train(TrainConfig(model="my_net.py:MyNet", epochs=2, train_samples=train_samples, output_dir="mine"))
print(f"fast-cnn {result.test_accuracy:.2%}, MyNet {mine.test_accuracy:.2%}")

# %% [markdown]
# One run of each says little: another seed gives another accuracy. `train_group` trains with several seeds, and
# `compare` says whether a difference is certain; see docs/comparing.md.
