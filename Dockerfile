# The server alone: no torch, no compiler, no root.
FROM python:3.11-slim AS build
WORKDIR /src
COPY constraints.txt pyproject.toml README.md ./
COPY app app
COPY migrations migrations
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home stateroom \
    && install --directory --owner=stateroom /data
COPY --from=build /venv /venv
USER stateroom
WORKDIR /data
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STATEROOM_HOST=0.0.0.0 \
    STATEROOM_DATA_DIR=/data
VOLUME /data
EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8765/readyz', timeout=2)"]
ENTRYPOINT ["stateroom-server"]
CMD ["serve"]
