#!/bin/sh
# Fill /opt/venv from one of the locks, every file by its hash, and write down what is in it.
#
#     venv.sh cpu.lock        torch and torchvision come first: their CPU builds carry no one hash
set -eu
lock=/build/$1
venv=/opt/venv
pip="$venv/bin/python -m pip --disable-pip-version-check --no-cache-dir install --quiet --no-deps"

[ -d "$venv" ] || python3 -m venv "$venv"
# What installs the rest. Nothing is fetched to build an sdist: setuptools and wheel are there.
if grep -E '^(pip|setuptools|wheel)==' "$lock" > /tmp/first.lock; then
    $pip --require-hashes --requirement /tmp/first.lock
fi
if [ "$1" = cpu.lock ]; then
    $pip $(cd /build && "$venv/bin/python" -c \
        'import install; print(f"torch=={install.TORCH} torchvision=={install.TORCHVISION}")')
fi
$pip --no-build-isolation --require-hashes --requirement "$lock"
if ! "$venv/bin/python" -c 'import torch'; then
    echo "error: this torch does not run here; the cpu image needs its CPU build: name an index" \
         "that has it (PIP_EXTRA_INDEX_URL) or a folder of wheels (PIP_FIND_LINKS)" >&2
    exit 1
fi
# Our code comes later, into a layer of its own, and is found there.
site=$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
echo /opt/reelproof > "$site/reelproof.pth"
printf '#!%s/bin/python\nfrom repro.cli import main\n\nmain()\n' "$venv" > "$venv/bin/repro"
chmod 755 "$venv/bin/repro"

python3 -m venv /tmp/tools
/tmp/tools/bin/python -m pip --disable-pip-version-check --no-cache-dir install --quiet --no-deps \
    --require-hashes --requirement /build/tools.lock
/tmp/tools/bin/cyclonedx-py environment "$venv/bin/python" --output-reproducible \
    --output-file "$venv/sbom.json"
rm -rf /tmp/tools /tmp/first.lock
