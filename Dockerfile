# The server on gcr.io/distroless/cc-debian12: no shell, no package manager, not root. `make image` builds it, with docker,
# podman or buildah; `make e2e-container` proves what is promised here.

FROM docker.io/library/rust:1.95-bookworm AS dependencies
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
# All dependencies, for a program that is empty: this layer is built anew only when one of the files above changes. It is the
# same command as below, so that cargo finds there what it looks for.
RUN mkdir src && touch src/lib.rs && echo 'fn main() {}' >src/main.rs \
    && cargo build --release --locked --bin chatroom

FROM dependencies AS build
COPY src src
ARG REVISION=unknown
# Cargo compares times, and the sources may be older than the layer above. That build.rs runs again makes up for it, today; the touch
# is there so that never the empty program is shipped.
RUN find src -name '*.rs' -exec touch {} + \
    && CHATROOM_REVISION="$REVISION" cargo build --release --locked --bin chatroom

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/chatroom /usr/local/bin/chatroom
# The base image's nonroot, by number: Kubernetes cannot know that a name is not root.
USER 65532:65532
# Clients; metrics and probes. Operators have 50052 on the container's loopback: `docker exec NAME chatroom admin list`.
EXPOSE 50051 9464
# It starts the drain, which takes up to 25 s by default: give the container 30 s to stop.
STOPSIGNAL SIGTERM
# With another port in CHATROOM_LISTEN, say where to ask in CHATROOM_ADDR.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/local/bin/chatroom", "health"]
# The exec form: a shell in between, if there were one, would keep the signal to itself.
ENTRYPOINT ["/usr/local/bin/chatroom"]
CMD ["serve"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="chatroom" \
      org.opencontainers.image.description="A gRPC broadcast server: what one client says, everyone receives, in one order" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
