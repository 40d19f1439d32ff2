#!/bin/bash
# A Slurm job on several machines with GPUs. Adapt the lines marked with <-, then: sbatch scripts/slurm.sh
#
# Slurm sends SIGTERM before it takes a job away (preemption, time limit) and starts it again (--requeue). mnist-accel
# then writes a checkpoint and leaves; --resume auto goes on from it. The output folder must be on a disk that all
# machines see; the data, too, unless every machine can download it.

#SBATCH --job-name=mnist-accel
#SBATCH --nodes=2                # <- machines
#SBATCH --ntasks-per-node=1      # one launcher a machine
#SBATCH --gpus-per-node=4        # <- GPUs of each; without GPUs take the line out and set PROCESSES below
#SBATCH --cpus-per-task=16       # <- cores of each
#SBATCH --time=00:30:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@60         # SIGTERM to the steps 60 s before the time limit

set -euo pipefail
source .venv/bin/activate        # <- the environment with mnist-accel

PROCESSES=${SLURM_GPUS_ON_NODE:-1}
MAIN=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 20000))
# Where a machine's own name stands for its loopback, name the network card that the machines share:
# export GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0

srun --kill-on-bad-exit=1 bash -c "exec torchrun \
    --nnodes=$SLURM_NNODES --node-rank=\$SLURM_NODEID --nproc-per-node=$PROCESSES \
    --master-addr=$MAIN --master-port=$PORT \
    -m mnist_accel train --resume auto --output-dir runs/$SLURM_JOB_NAME --data-dir data"
