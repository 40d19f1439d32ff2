"""Faster convolutions, memory allocation, threads, gradient exchange and launching of kernels, by these functions only.

Without `enabled`, training is slower and gives the same bits; for convolutions the same up to rounding.
"""

from mnist_accel.speed.allocator import keep_freed_memory as keep_freed_memory
from mnist_accel.speed.convolutions import prepare_model as prepare_model
from mnist_accel.speed.cuda_graph import Replay as Replay
from mnist_accel.speed.cuda_graph import prepare_replay as prepare_replay
from mnist_accel.speed.cuda_graph import stop_replay as stop_replay
from mnist_accel.speed.shared_memory import prepare_exchange as prepare_exchange
from mnist_accel.speed.threads import bound_to_first_core as bound_to_first_core
from mnist_accel.speed.threads import start_threads as start_threads
