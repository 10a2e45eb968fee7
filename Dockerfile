# The server alone: no torch, no compiler, no pip, no root. For what it can do besides, name extras of pyproject.toml:
#   docker build --build-arg EXTRAS=cast,otel --build-arg BUILD=$(git describe --always --dirty) .
FROM node:24-slim AS charts
WORKDIR /src/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --omit=dev && npm run charts

FROM python:3.11-slim AS build
ARG EXTRAS=""
ARG BUILD=""
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY app app
COPY --from=charts /src/app app
COPY migrations migrations
# The index beside PyPI has the torch for CPUs: PyPI's brings gigabytes for GPUs, which the server does not use.
# What builds our wheel is pinned like all else; of others only wheels are taken, so nothing is compiled.
RUN printf '%s' "$BUILD" > app/build.txt \
    && pip install --no-cache-dir --only-binary :all: -c constraints.txt setuptools \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --only-binary :all: -c constraints.txt \
        ${EXTRAS:+--extra-index-url https://download.pytorch.org/whl/cpu} "$(echo /wheels/*.whl)${EXTRAS:+[$EXTRAS]}"

FROM python:3.11-slim
# Numbers, so that whoever runs it can see that it is not root.
RUN groupadd --system --gid 10001 stateroom \
    && useradd --system --uid 10001 --gid 10001 --no-create-home stateroom \
    && install --directory --owner=10001 --group=10001 /data
COPY --from=build /venv /venv
USER 10001:10001
WORKDIR /data
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STATEROOM_HOST=0.0.0.0 \
    STATEROOM_PORT=8765 \
    STATEROOM_DATA_DIR=/data
VOLUME /data
EXPOSE 8765
# The server drains for 30 s: docker stop --time 60.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['STATEROOM_PORT']), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["stateroom-server"]
CMD ["serve"]
