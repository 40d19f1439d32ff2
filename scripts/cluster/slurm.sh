#!/bin/bash
# A Slurm job on several machines with GPUs. Adapt the lines marked with <-, then: sbatch scripts/cluster/slurm.sh
#
# One minute before the time limit, and before a preemption, Slurm sends SIGTERM to this script, which forwards it. The run
# writes a checkpoint and exits, and the job is queued again; --resume auto continues from the checkpoint. The output
# folder must be on a disk that all machines share, and so must data sets other than MNIST, which is in the package.

#SBATCH --job-name=mnist-accel
#SBATCH --nodes=2                # <- machines
#SBATCH --ntasks-per-node=1      # one launcher per machine
#SBATCH --gpus-per-node=4        # <- GPUs per machine; without GPUs remove this line and set PROCESSES below
#SBATCH --cpus-per-task=16       # <- cores per machine
#SBATCH --time=00:30:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60       # SIGTERM to this script 60 s before the time limit

set -euo pipefail
source .venv/bin/activate        # <- the environment with mnist-accel

PROCESSES=${SLURM_GPUS_ON_NODE:-1}
MAIN=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 20000))
# Where a machine's own name resolves to its loopback, name the network interface that the machines share:
# export GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0

srun bash -c "exec torchrun \
    --nnodes=$SLURM_NNODES --node-rank=\$SLURM_NODEID --nproc-per-node=$PROCESSES \
    --master-addr=$MAIN --master-port=$PORT \
    -m mnist_accel train --resume auto --output-dir runs/$SLURM_JOB_NAME --data-dir data" &
STEP=$!
stopped=no
trap 'stopped=yes; kill -TERM "$STEP"' TERM
code=0
wait "$STEP" || code=$?
if [ "$stopped" = yes ]; then
    wait "$STEP" || true         # the first wait ended with the signal
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
