# The images of ReelProof: `repro container build cpu`, `eval` or `train`.
#
#   cpu    micro profile and tests. Classic syntax, few instructions: an engine without BuildKit
#          builds it, and one that keeps plain folders (vfs) copies everything for each of them
#   eval   scoring on a GPU          train  training on a GPU. Both need BuildKit
#
# docker/bases.lock pins the bases; `repro container build` passes tag and digest. Where packages
# come from is pip's own business: its PIP_* settings, or a pip.conf as BuildKit's secret.

ARG CPU_BASE=debian:bookworm-slim
ARG EVAL_BASE=nvidia/cuda:13.0.1-base-ubuntu24.04
ARG TRAIN_BASE=nvidia/cuda:13.0.1-cudnn-devel-ubuntu24.04

# --- cpu: Debian 12, Python 3.11 ----------------------------------------------------------------

# Any user may write to the volumes: a container often runs as one that the image does not know.
FROM ${CPU_BASE} AS cpu-python
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
       ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -m 1777 /cache /cache/hf /runs

FROM cpu-python AS cpu-build
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_TRUSTED_HOST PIP_CERT
COPY requirements/install.py requirements/cpu.lock requirements/tools.lock docker/venv.sh /build/
RUN sh /build/venv.sh cpu.lock

FROM cpu-python AS cpu
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 USER=reelproof \
    HOME=/cache XDG_CACHE_HOME=/cache HF_HOME=/cache/hf REELPROOF_CACHE=/cache/reelproof \
    REPRO_RUNS=/runs
VOLUME ["/cache", "/runs"]
# The default --out is runs/..., below the working directory /: it lands in the volume.
STOPSIGNAL SIGTERM
ENTRYPOINT ["repro"]
CMD ["--help"]
ARG REVISION="" CREATED="" SOURCE=""
ENV REPRO_COMMIT=$REVISION
LABEL org.opencontainers.image.title="reelproof cpu" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
COPY --from=cpu-build /opt/venv /opt/venv
COPY . /opt/reelproof
RUN python3 /opt/reelproof/docker/finish.py
USER 65532:65532

# --- eval and train: Ubuntu 24.04, Python 3.12, CUDA 13 ------------------------------------------

FROM ${TRAIN_BASE} AS train-python
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
       ca-certificates g++ gcc python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -m 1777 /cache /cache/hf /runs

FROM train-python AS eval-build
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_TRUSTED_HOST PIP_CERT
COPY requirements/eval.lock requirements/tools.lock docker/venv.sh /build/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf sh /build/venv.sh eval.lock

FROM eval-build AS train-build
COPY requirements/train.lock /build/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf sh /build/venv.sh train.lock

# gcc and Python's headers: Triton compiles its launchers when a kernel first runs.
FROM ${EVAL_BASE} AS eval
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
       ca-certificates gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -m 1777 /cache /cache/hf /runs
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 USER=reelproof \
    HOME=/cache XDG_CACHE_HOME=/cache HF_HOME=/cache/hf REELPROOF_CACHE=/cache/reelproof \
    REPRO_RUNS=/runs NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    NVIDIA_REQUIRE_CUDA="cuda>=13.0"
VOLUME ["/cache", "/runs"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["repro"]
CMD ["--help"]
ARG REVISION="" CREATED="" SOURCE=""
ENV REPRO_COMMIT=$REVISION
LABEL org.opencontainers.image.title="reelproof eval" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
COPY --from=eval-build /opt/venv /opt/venv
COPY . /opt/reelproof
RUN python3 /opt/reelproof/docker/finish.py
USER 65532:65532

# nvcc stays: DeepSpeed compiles its optimizers when they are first used.
FROM train-python AS train
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 USER=reelproof \
    HOME=/cache XDG_CACHE_HOME=/cache HF_HOME=/cache/hf REELPROOF_CACHE=/cache/reelproof \
    REPRO_RUNS=/runs NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    NVIDIA_REQUIRE_CUDA="cuda>=13.0"
VOLUME ["/cache", "/runs"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["repro"]
CMD ["--help"]
ARG REVISION="" CREATED="" SOURCE=""
ENV REPRO_COMMIT=$REVISION
LABEL org.opencontainers.image.title="reelproof train" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
COPY --from=train-build /opt/venv /opt/venv
COPY . /opt/reelproof
RUN python3 /opt/reelproof/docker/finish.py
USER 65532:65532
