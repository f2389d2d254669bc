# The coordinator: its binary on a slim Debian. It never loads libtorch.
#
#   docker build -f deploy/containers/coordinator.Dockerfile -t lsa-coordinator:0.1.0 .
ARG RUST=rust:1.95.0-slim-bookworm
ARG BASE=debian:12.14-slim

FROM ${RUST} AS build
WORKDIR /src
COPY . .
# The cache mounts are BuildKit's: what did not change is not compiled again.
RUN --mount=type=cache,id=lsa-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=lsa-coordinator,target=/src/target,sharing=locked \
    cargo build --release --locked -p lsa-coordinator \
    && cp target/release/lsa-coordinator /usr/local/bin/

# The same release of Debian as the build stage, or a later one: its glibc must not be older.
FROM ${BASE}
# Certificates of the usual CAs, which are no part of the binary. Debian keeps no old versions, so that none is named.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 lsa \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin lsa \
    && install -d -o 10001 -g 10001 /cache
COPY --from=build /usr/local/bin/lsa-coordinator /usr/local/bin/

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lsa-coordinator" \
      org.opencontainers.image.description="Decides who does what: accepts jobs, lends work to workers, merges results" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# The only folders that are written are /cache and /tmp; the rest may be read-only.
ENV XDG_CACHE_HOME=/cache
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 7300 7301
# It takes SIGTERM itself and starts no children, so that it needs no init process.
ENTRYPOINT ["lsa-coordinator"]
CMD ["serve"]
