#!/usr/bin/env bash
# The driver of a run as a job of its own: it asks for worker jobs, and goes on in a new job when its time is up.
#
#   sbatch deploy/slurm.sh jobs/triage.toml --on deploy/slurm.toml
#
# All that is given goes to 'diffdask run'. Options of sbatch before the script win over those below.
#SBATCH --job-name=diffdask
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=24:00:00
#SBATCH --output=diffdask-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
# USR1 five minutes before the time is up: end cleanly and go on in the queue again
#SBATCH --signal=B:USR1@300
set -uo pipefail

# workers are jobs of their own: what this job was given must not reach them
unset "${!SLURM_CPU_@}" "${!SLURM_MEM_@}" SLURM_NTASKS SLURM_NPROCS SLURM_CPUS_PER_TASK

time_is_up=no
trap 'time_is_up=yes; kill -TERM "$driver"' USR1
trap 'kill -TERM "$driver"' TERM INT

"${DIFFDASK:-diffdask}" run "$@" --no-progress &
driver=$!
# a trap ends 'wait' early, with a code above 128
while wait "$driver"; code=$?; kill -0 "$driver" 2>/dev/null; do :; done

if [ "$time_is_up" = yes ] && [ "$code" -eq 143 ]; then
  echo "the time is up: job $SLURM_JOB_ID goes back to the queue and goes on where it stopped"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
