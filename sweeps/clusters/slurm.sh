#!/bin/bash
# A sweep on Slurm, without Ray: every task of the array drives the sweep on its node, and all share the work through
# the store. A task that is preempted writes its checkpoints; whoever is left, or the task when it is requeued, goes on.
#
#   SPEC=spec.yaml STORE=/shared/sweeps/name sbatch slurm.sh
#
#SBATCH --job-name=distlaw
#SBATCH --array=1-4                  # change: nodes to work on
#SBATCH --cpus-per-task=16           # change
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60           # time for a checkpoint before the limit
##SBATCH --gres=gpu:1                # with a GPU: --cores below is then how many steps share it

set -euo pipefail
: "${SPEC:?a YAML file}" "${STORE:?a directory that all nodes see, or a bucket}"

exec distlaw sweep run "$SPEC" --store "$STORE" --executor process --cores "${SLURM_CPUS_PER_TASK:-1}"
