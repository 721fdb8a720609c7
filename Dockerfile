# Weir's roles as one image. ClickHouse is a service of its own beside it, so the embedded engine is left out. Debian, because uWebSockets.js is
# built for glibc. Which role a container is, its command says: `start --roles ingest`. docs/deploy.md says how to run it.
ARG NODE_IMAGE=node:20.20.2-bookworm-slim

FROM ${NODE_IMAGE} AS packages
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# What the lock file names, by its checksums (why not `npm ci`: bin/prepare.js). No package's install script is run.
RUN npm install --no-save --include=dev --ignore-scripts --no-audit --no-fund --loglevel=error

FROM packages AS build
COPY . .
RUN node bin/build.js && node bin/image.js /image

FROM ${NODE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Weir" \
      org.opencontainers.image.description="Real-time IoT telemetry that people can trust" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# What only builds: whoever gets in finds no package manager.
RUN rm -rf /usr/local/lib/node_modules /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack /usr/local/bin/yarn* /opt/yarn* \
 && install -d -o 65534 -g 65534 -m 0700 /var/lib/weir /var/lib/weir-registry
COPY --from=build /image /app
ENV NODE_ENV=production \
    WEIR_DATA=/var/lib/weir \
    WEIR_HOST=0.0.0.0 \
    WEIR_HEALTH_PORT=8083
# nobody; as a number, so that a platform can see that it is not root.
USER 65534:65534
WORKDIR /var/lib/weir
EXPOSE 1883 8080 8081 8082 8083
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s --retries=3 CMD ["node", "/app/dist/main.js", "health"]
ENTRYPOINT ["node", "/app/dist/main.js"]
CMD ["start"]
