# Troupe as a service: docs/deployment.md. Every step runs without Docker too: node .ci/image.mjs

# The Node.js LTS that the tests run on: `node` in package.json.
ARG NODE_VERSION=24.21.0

FROM node:${NODE_VERSION}-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY rolldown.config.ts tsconfig.json ./
COPY src src
RUN npx rolldown -c rolldown.config.ts
# true: with the packages for models of the onnx engine, on the CPU.
ARG ONNX=true
COPY deploy/prune.mjs deploy/
RUN node deploy/prune.mjs ${ONNX} && mkdir -p data/models

FROM node:${NODE_VERSION}-bookworm-slim
WORKDIR /troupe
COPY --from=build /build/node_modules node_modules
COPY --from=build /build/dist dist
COPY package.json LICENSE NOTICE ./
COPY models/tiny-chat-q8_0.gguf models/tiny-chat-recall.gguf models/README.md models/
COPY models/tiny-embed models/tiny-embed
COPY deploy/healthcheck.mjs deploy/
# The only folder that is written, with /tmp. A new volume has the owner and the content of the folder.
COPY --from=build --chown=1001:1001 /build/data /data
ENV NODE_ENV=production \
    HOST=0.0.0.0 \
    PORT=3000 \
    HOME=/data \
    TROUPE_DATA=/data \
    TROUPE_MODELS=/data/models
USER 1001:1001
VOLUME ["/data"]
EXPOSE 3000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["node", "/troupe/deploy/healthcheck.mjs"]
ENTRYPOINT ["node", "/troupe/dist/main.js"]
CMD ["serve"]
