"""Faster convolutions, memory allocation and gradient exchange on a CPU.

The three functions below are the only way in. Each takes `enabled`; without it, training gives the same results more
slowly: the same bits for allocation and exchange, the same up to rounding for convolutions.
"""

from mnist_accel.speed.allocator import keep_freed_memory
from mnist_accel.speed.onednn import prepare_model
from mnist_accel.speed.shared_memory import prepare_exchange

__all__ = ["keep_freed_memory", "prepare_exchange", "prepare_model"]
