#!/usr/bin/env bash
# As repro/ktr/launch/torchrun.sh, for this paper: one process a card, of one machine or of several.
#
#   bash repro/ffr/launch/torchrun.sh
#   ARM=grpo SEED=1 bash repro/ffr/launch/torchrun.sh --until 100
#   NODES=2 NODE=0 HEAD=host0 bash repro/ffr/launch/torchrun.sh
set -euo pipefail

export RECIPE=${RECIPE:-ffr} ARM=${ARM:-ffr}
exec bash "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/../../ktr/launch/torchrun.sh" "$@"
