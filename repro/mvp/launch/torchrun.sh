#!/usr/bin/env bash
# As repro/ktr/launch/torchrun.sh, for this paper: one process a card, of one machine or of several.
#
#   bash repro/mvp/launch/torchrun.sh
#   ARM=qa SEED=1 bash repro/mvp/launch/torchrun.sh --until 100
#   NODES=2 NODE=0 HEAD=host0 bash repro/mvp/launch/torchrun.sh
set -euo pipefail

export RECIPE=${RECIPE:-mvp} ARM=${ARM:-mvp_qa}
exec bash "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/../../ktr/launch/torchrun.sh" "$@"
