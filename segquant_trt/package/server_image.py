"""The server that repositories' READMEs start."""

SERVER_IMAGE = "nvcr.io/nvidia/tritonserver:25.08-py3"
PORTS = "-p 8000:8000 -p 8001:8001 -p 8002:8002"
