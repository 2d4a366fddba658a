"""The only package that knows every stage.

A stage runs when its inputs' digests, its options or this program's version have changed, or when
what it wrote is gone or altered; otherwise it is skipped. So an interrupted compilation continues
with the same command and ends in the same bytes.
"""

from segquant_trt.pipeline.costs import write_local_table
from segquant_trt.pipeline.explain import explain_site
from segquant_trt.pipeline.generate import generate
from segquant_trt.pipeline.run import compile, compile_model, run_stage
from segquant_trt.pipeline.stages import STAGES

__all__ = [
    "STAGES",
    "compile",
    "compile_model",
    "explain_site",
    "generate",
    "run_stage",
    "write_local_table",
]
