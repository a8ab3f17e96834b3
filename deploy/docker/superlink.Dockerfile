# A SuperLink with this app's dependencies, as its ServerApps run in processes of its own.
#   docker build -f deploy/docker/superlink.Dockerfile -t bmsfed/superlink .      (in the checkout)
FROM python:3.12-slim-bookworm

# Builds of torch for the CPU, a fifth of the size. For a GPU: --build-arg TORCH_INDEX=https://pypi.org/simple
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/bmsfed
COPY pyproject.toml README.md LIMITS.md LICENSE ./
COPY strategies strategies
COPY bmsfed_app bmsfed_app
COPY client_app client_app
COPY server_app server_app
COPY conf conf
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" ".[tensorboard,mlflow,wandb,prometheus]" \
    && useradd --uid 10001 --create-home --home-dir /var/lib/bmsfed bmsfed
COPY --chmod=755 deploy/docker/health.py /usr/local/bin/health

ENV PYTHONUNBUFFERED=1 BMSFED_HOME=/var/lib/bmsfed FLWR_HOME=/var/lib/bmsfed/flwr FLWR_TELEMETRY_ENABLED=0
USER 10001
WORKDIR /var/lib/bmsfed
VOLUME /var/lib/bmsfed
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s CMD ["health", "127.0.0.1:8081"]
ENTRYPOINT ["flower-superlink", "--host", "0.0.0.0", "--port", "8000", \
    "--health-server-address", "127.0.0.1:8081", "--disable-runtime-dependency-installation"]
