#!/usr/bin/env bash
# As repro/ktr/launch/accelerate.sh, for this paper.
#
#   bash repro/temporal_r1/launch/accelerate.sh
#   CARDS=4 SEED=1 bash repro/temporal_r1/launch/accelerate.sh
set -euo pipefail

export RECIPE=${RECIPE:-temporal_r1} ARM=${ARM:-temporal_r1}
exec bash "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/../../ktr/launch/accelerate.sh" "$@"
