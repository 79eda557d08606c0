#!/usr/bin/env bash
# As repro/ktr/launch/torchrun.sh, for this paper: one process a card, of one machine or of several.
#
#   bash repro/temporal_r1/launch/torchrun.sh
#   SEED=1 bash repro/temporal_r1/launch/torchrun.sh --until 100
#   NODES=2 NODE=0 HEAD=host0 bash repro/temporal_r1/launch/torchrun.sh
# The arm sft trains in one process: CARDS=1 ARM=sft.
set -euo pipefail

export RECIPE=${RECIPE:-temporal_r1} ARM=${ARM:-temporal_r1}
exec bash "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/../../ktr/launch/torchrun.sh" "$@"
