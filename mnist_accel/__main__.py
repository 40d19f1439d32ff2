"""`python -m mnist_accel`, and so `accelerate launch -m mnist_accel` and `torchrun -m mnist_accel`."""

from mnist_accel.cli import main

if __name__ == "__main__":
    main()
