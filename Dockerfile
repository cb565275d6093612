# A reranking server: docker build -t onnx-rerank . && docker run -p 8080:8080 -e ONNX_RERANK_API_KEYS=... onnx-rerank
# --build-arg MODEL=org/name bakes another model in; the one inside the package needs no download.
FROM python:3.12-slim AS build
ARG MODEL=embedded
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HF_HOME=/models
WORKDIR /src
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY onnx_rerank_integrations onnx_rerank_integrations
RUN python -m venv /venv && /venv/bin/pip install ".[server]" && mkdir -p /models
# Scores one pair, so that what the image holds is known to run; a model from the hub is now in /models.
RUN /venv/bin/python -c "import sys; from onnx_rerank_integrations import TextCrossEncoder; \
    TextCrossEncoder(sys.argv[1]).rerank('a query', ['a document'])" "$MODEL"

FROM python:3.12-slim
ARG MODEL=embedded
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HF_HOME=/models HF_HUB_OFFLINE=1 ONNX_RERANK_MODEL=$MODEL
RUN useradd --system --uid 10001 --create-home rerank
COPY --from=build /venv /venv
COPY --from=build --chown=rerank /models /models
USER rerank
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/ready', timeout=2)"]
# Refuses to start without a key; where only a trusted network reaches it, append --allow-anonymous.
ENTRYPOINT ["onnx-rerank", "serve", "--host", "0.0.0.0", "--port", "8080"]
