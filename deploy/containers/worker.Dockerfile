# The worker: its binary, libtorch 2.11 and the CUDA 13.0 libraries that this libtorch was built for. It computes on the CPU
# where there is no GPU.
#
#   docker build -f deploy/containers/worker.Dockerfile -t lsa-worker:0.1.0 .
ARG RUST=rust:1.95.0-slim-bookworm
# "base" has what a driver needs to know, and refuses drivers that are too old. The "runtime" images would bring cuBLAS and
# the like a second time: libtorch takes its own.
ARG BASE=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${RUST} AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make python3-pip \
    && rm -rf /var/lib/apt/lists/*
# The release that scripts/setup.sh takes. What it needs of CUDA comes along, in versions that it names itself.
RUN python3 -m pip install --no-cache-dir --target /opt/torch torch==2.11.0
WORKDIR /src
COPY . .
# The run path of the binary is the folder below LIBTORCH, so that the last stage must have it in the same place.
ENV LIBTORCH=/opt/torch/torch
RUN --mount=type=cache,id=lsa-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=lsa-worker,target=/src/target,sharing=locked \
    cargo build --release --locked -p lsa-worker \
    && cp target/release/lsa-worker /usr/local/bin/
# What only compilers and Python read.
RUN find /opt/torch/nvidia -type d -name include -prune -exec rm -rf {} + \
    && find /opt/torch/torch/lib /opt/torch/nvidia \( -name '*.a' -o -name '*.py' -o -name '*.pyc' \) -delete \
    && rm -f /opt/torch/torch/lib/libtorch_python.so

# Ubuntu 24.04 has a later glibc than the Debian 12 of the build stage; the other way round would not start.
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 lsa \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin lsa \
    && install -d -o 10001 -g 10001 /cache
# libtorch finds the CUDA libraries from where it lies itself: ../../nvidia.
COPY --from=build /opt/torch/nvidia /opt/torch/nvidia
COPY --from=build /opt/torch/torch/lib /opt/torch/torch/lib
COPY --from=build /usr/local/bin/lsa-worker /usr/local/bin/

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lsa-worker" \
      org.opencontainers.image.description="Runs texts through models, pools every layer, compares layers; one process for each device" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# The only folders that are written are /cache and /tmp; the rest may be read-only.
ENV XDG_CACHE_HOME=/cache
USER 10001:10001
EXPOSE 7302
# It takes SIGTERM itself and starts no children, so that it needs no init process.
ENTRYPOINT ["lsa-worker"]
CMD ["serve"]
