"""Faster convolutions, memory allocation, gradient exchange and launching of kernels, through these functions only.

Without `enabled`, training is slower and gives the same bits; for convolutions the same up to rounding.
"""

from mnist_accel.speed.allocator import keep_freed_memory
from mnist_accel.speed.convolutions import prepare_model
from mnist_accel.speed.cuda_graph import Replay, call, prepare_replay, use_own_stream
from mnist_accel.speed.shared_memory import prepare_exchange

__all__ = [
    "Replay",
    "call",
    "keep_freed_memory",
    "prepare_exchange",
    "prepare_model",
    "prepare_replay",
    "use_own_stream",
]
