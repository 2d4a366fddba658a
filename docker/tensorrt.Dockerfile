# Compiles and runs bundles on a machine with an NVIDIA GPU. The base holds CUDA and TensorRT 10.13,
# with Python bindings that satisfy the extra `tensorrt`:
#   docker build -f docker/tensorrt.Dockerfile -t segquant-trt:tensorrt .
#   docker run --rm --gpus all -v "$PWD/run:/data/run" segquant-trt:tensorrt doctor
FROM python:3.12-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY segquant_trt segquant_trt
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM nvcr.io/nvidia/tensorrt:25.08-py3
# The base's Python is the system's, whose packages pip may not change unless it is told to.
ENV PIP_BREAK_SYSTEM_PACKAGES=1
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[tensorrt]" \
    && rm -r /wheels \
    && useradd --uid 10001 --create-home segquant
USER 10001
WORKDIR /data
ENTRYPOINT ["segquant-trt"]
CMD ["--help"]
