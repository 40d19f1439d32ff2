"""`python -m mnist_accel`, and so `accelerate launch -m mnist_accel` and `torchrun -m mnist_accel`; `mnist-accel`."""

import sys


def main() -> None:
    """Run the command line. Its own modules handle Ctrl-C as soon as they are imported."""
    try:
        from mnist_accel import cli
    except KeyboardInterrupt:
        print("mnist-accel: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
