# Compiles and runs bundles on a machine without a GPU:
#   docker build -f docker/cpu.Dockerfile -t segquant-trt:cpu .
#   docker run --rm -v "$PWD/run:/data/run" segquant-trt:cpu compile zoo:digits-unet -o /data/run
FROM python:3.11-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY segquant_trt segquant_trt
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
# An index that serves torch without CUDA; without one pip takes the build that carries it.
ARG PIP_EXTRA_INDEX_URL=""
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[openvino]" \
    && rm -r /wheels \
    && useradd --uid 1000 --create-home segquant
USER 1000
WORKDIR /data
ENTRYPOINT ["segquant-trt"]
CMD ["--help"]
