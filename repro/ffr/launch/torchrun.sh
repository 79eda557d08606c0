#!/usr/bin/env bash
# Train one arm on the cards of one machine, or of several: torchrun starts one process a card.
#
#   bash repro/ffr/launch/torchrun.sh                                 all cards of this machine
#   ARM=grpo SEED=1 bash repro/ffr/launch/torchrun.sh --until 100     more options of repro train
#   NODES=2 NODE=0 HEAD=host0 bash repro/ffr/launch/torchrun.sh       the same line on each node,
#                                                                     with its own NODE
# The process group is ZeRO-3 in profile paper (deepspeed: 3 in recipe.yaml); it resumes by itself.
set -euo pipefail

RECIPE=${RECIPE:-ffr} PROFILE=${PROFILE:-paper} ARM=${ARM:-ffr} SEED=${SEED:-0}
OUT=${OUT:-runs/$RECIPE-$PROFILE/$ARM-s$SEED}
CARDS=${CARDS:-$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')}
NODES=${NODES:-1} NODE=${NODE:-0} HEAD=${HEAD:-localhost} PORT=${PORT:-29500}

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec python -m torch.distributed.run --nnodes "$NODES" --node_rank "$NODE" \
  --rdzv_backend c10d --rdzv_endpoint "$HEAD:$PORT" --nproc_per_node "$CARDS" \
  -m repro train "$RECIPE" --profile "$PROFILE" --arm "$ARM" --seed "$SEED" \
  --out "$OUT" --resume "$@"
