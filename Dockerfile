# Two stages: a build with the Rust toolchain, and an image with nothing but the binary, its configuration and the
# certificates of public authorities.
#
#   docker build -t sluice .
#   docker run --rm -p 8080:8080 -v "$PWD/conf:/etc/sluice:ro" sluice
#
# Mount the folder, not the file: a file that is replaced by a rename stays the old one in a mount of its own, and a
# reload would never see the change. The gateway.yaml in the image listens on loopback, inside the container only: yours
# says `bind: 0.0.0.0:8080`.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin sluice && cp target/release/sluice /usr/local/bin/

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 65532 --no-create-home --shell /usr/sbin/nologin sluice \
    && install --directory --mode 0700 --owner sluice /var/lib/sluice
COPY --from=build /usr/local/bin/sluice /usr/local/bin/sluice
COPY gateway.yaml /etc/sluice/gateway.yaml
USER 65532:65532
EXPOSE 8080
# A drain begins with TERM; allow it more than `shutdown.grace` (30 s) before the kill: docker stop --time 40
STOPSIGNAL SIGTERM
# Asks the admin listener for /livez and /readyz. Elsewhere than 127.0.0.1:9900? Set SLUICE_ADMIN.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["sluice", "healthcheck"]
ENTRYPOINT ["sluice"]
CMD ["run", "-c", "/etc/sluice/gateway.yaml"]
