#!/usr/bin/env bash
# As repro/ktr/launch/accelerate.sh, for this paper.
#
#   bash repro/ffr/launch/accelerate.sh
#   CARDS=4 ARM=grpo bash repro/ffr/launch/accelerate.sh
set -euo pipefail

export RECIPE=${RECIPE:-ffr} ARM=${ARM:-ffr}
exec bash "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/../../ktr/launch/accelerate.sh" "$@"
