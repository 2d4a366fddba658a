# Serves a repository that `segquant-trt package triton` wrote; docker/README.md has all steps:
#   docker build -f docker/triton.Dockerfile -t digits-server path/to/repository
#   docker run --rm --shm-size 1g -p 8000:8000 -p 8001:8001 digits-server
FROM nvcr.io/nvidia/tritonserver:25.08-py3
# The version that the repository's README names.
ARG ONNXRUNTIME=1.31.1
ENV PIP_BREAK_SYSTEM_PACKAGES=1
RUN pip install --no-cache-dir "onnxruntime==${ONNXRUNTIME}" "tritonclient[http]>=2.51,<3"
COPY . /models
# The base's own user, triton-server.
USER 1000
EXPOSE 8000 8001 8002
# A model whose process died still counts as ready; only a request shows it.
HEALTHCHECK --interval=30s --timeout=60s --start-period=120s \
    CMD ["python3", "/models/client.py", "--protocol", "http"]
CMD ["tritonserver", "--model-repository=/models"]
