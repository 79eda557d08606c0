#!/usr/bin/env bash
# Train one arm with accelerate in front: accelerate.yaml says how many processes, the recipe the rest.
#
#   bash repro/ffr/launch/accelerate.sh
#   CARDS=4 ARM=grpo bash repro/ffr/launch/accelerate.sh
set -euo pipefail

RECIPE=${RECIPE:-ffr} PROFILE=${PROFILE:-paper} ARM=${ARM:-ffr} SEED=${SEED:-0}
OUT=${OUT:-runs/$RECIPE-$PROFILE/$ARM-s$SEED}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec accelerate launch --config_file "$HERE/accelerate.yaml" ${CARDS:+--num_processes "$CARDS"} \
  ${PORT:+--main_process_port "$PORT"} \
  -m repro train "$RECIPE" --profile "$PROFILE" --arm "$ARM" --seed "$SEED" \
  --out "$OUT" --resume "$@"
