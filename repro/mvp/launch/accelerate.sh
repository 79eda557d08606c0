#!/usr/bin/env bash
# As repro/ktr/launch/accelerate.sh, for this paper.
#
#   bash repro/mvp/launch/accelerate.sh
#   CARDS=4 ARM=qa bash repro/mvp/launch/accelerate.sh
set -euo pipefail

export RECIPE=${RECIPE:-mvp} ARM=${ARM:-mvp_qa}
exec bash "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/../../ktr/launch/accelerate.sh" "$@"
