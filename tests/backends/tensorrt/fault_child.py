"""Runs faults, each in a process of its own, forked from one that has imported everything.

Reads cases as JSON from stdin: {name: {"code", "driver": {NAME: answer}}}; answers {name: [exit
status, what the error says, its hint]}. TensorRT is a fake whose `Builder` and `Runtime` end the
process by a signal, as the real ones do where there is no usable GPU: nothing may construct them.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from segquant_trt.backends.tensorrt import device
from segquant_trt.backends.tensorrt.builder import BuildRequest, build_engine
from segquant_trt.backends.tensorrt.runtime import open_engine
from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import BuildOptions, ShapeProfile, ShapeRange
from tests.contract.tensorrt import workbench
from tests.contract.tensorrt.fake import VERSIONS, fake_tensorrt


def crash(this: object, logger: object) -> None:
    os.abort()


def install(version: str = VERSIONS[-1], cuda: int = 13) -> None:
    """Have `import tensorrt` find the fake, made for this generation of CUDA."""
    module, script = fake_tensorrt(
        VERSIONS[-1], {"Builder.__init__": crash, "Runtime.__init__": crash}
    )
    script.answers["Builder.__init__"] = crash
    module.__version__ = version
    sys.modules["tensorrt"] = module
    found = [SimpleNamespace(metadata={"Name": f"tensorrt-cu{cuda}-bindings"})]
    metadata.distributions = lambda: iter(found)  # type: ignore[assignment]


def build(folder: Path, **options: Any) -> None:
    """Build the small graph."""
    build_engine(workbench.request(folder, **options))


def run(code: str, folder: Path) -> tuple[str, str]:
    """The error that `code` ends with."""
    install()
    names = globals() | {"folder": folder, "Path": Path}
    try:
        exec(code, names)
    except SegQuantError as error:
        return error.what, error.hint
    return "", ""


def main() -> None:
    results: dict[str, Any] = {}
    for index, (name, case) in enumerate(json.load(sys.stdin).items()):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.environ.update({f"FAKE_{key}": str(v) for key, v in case["driver"].items()})
            folder = Path(sys.argv[1]) / str(index)
            folder.mkdir()
            os.write(writer, json.dumps(run(case["code"], folder)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            text = pipe.read()
        _, status = os.waitpid(child, 0)
        results[name] = [
            os.waitstatus_to_exitcode(status),
            *(json.loads(text) if text else ("", "")),
        ]
    json.dump(results, sys.stdout)


__all__ = ["BuildOptions", "BuildRequest", "ShapeProfile", "ShapeRange", "device", "open_engine"]

if __name__ == "__main__":
    main()
