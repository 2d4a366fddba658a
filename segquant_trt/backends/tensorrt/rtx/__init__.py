"""TensorRT-RTX: builds engines ahead of time without a GPU, and tells what it made of a graph.

What its builder does, found by running version 1.7.1.116 on small graphs for sm_89 (sm_80 and
sm_120 agree where they have the types) and kept true by `tests/backends/tensorrt/rtx`. It is the
ahead-of-time stage: on the GPU a second stage compiles the products ("__myelin_CASK_STUB") and may
fuse further.

Numbers that ONNX Runtime cannot show
    A `gemm` writes its result in the graph's float type *before* any scale per channel. What it
    multiplies by itself is one float32 number, `alpha`:

    ==========================================  =========  =====================================
    weight scales of a linear                   alpha      epilogue, in the graph's float type
    ==========================================  =========  =====================================
    one per channel, s_w[N]                     1          times s_x * s_w[N], multiplied and
                                                           rounded in the graph's type
    one for all, s_w, and Mul by rel[N] after   s_x * s_w  times rel[N]
    ==========================================  =========  =====================================

    So in FP16 the plain form hands on the sums of the codes themselves, 127 * 127 * K at worst,
    which overflow above 65504 unless the second stage fuses the scale in; and s_x * s_w[N] below
    6e-5 loses digits (below 6e-8 it is zero). In BF16 s_x * s_w[N] is rounded to 8 bits. The second
    form has neither trouble, the same codes, and not one kernel more. s_x is the scale of the
    DequantizeLinear: it may differ from that of the QuantizeLinear, and the product stays 8-bit.
    An INT8 or FP8 `correlation` with one scale per channel writes *float32* (4 bytes per element,
    alpha 1, scales in float32); with one scale for all it writes the graph's type, alpha in it.

8-bit products
    INT8 on all GPUs; FP8 E4M3 on sm_89, sm_120, sm_121, no E5M2. Float types of the graph: FP16,
    BF16 (not on sm_75), FP32. INT8 and FP8 sites in one network; both types in one product fail
    to build. MatMul, Gemm (also transB, also with bias), Conv with any kernel, stride and group;
    odd sizes are padded. ConvTranspose stays 16-bit (kind `deconv`).
    A convolution needs a Q/DQ pair on its input only; on its output it changes nothing but adds
    rounding. Its bias may be its third input or an Add. FP16 convolutions in NCHW cost a
    transposing kernel more on each side than INT8 ones.
    Q(DQ) scales in the graph's float type; FP32 scales of FP16 data make FP32 outputs.
    Weight codes may lie [N, K] with Transpose after their DQ, be quantised by a Q node, and be
    taken apart (Split, Slice) after DQ, their scales by Gather of a constant. Not before DQ.
    Products that read the same codes (one Q, or equal ones) merge into one gemm, if their alphas
    are equal: "v+k+q". Two segments, two polarities and several alphas stay separate gemms.

Prologues and epilogues (one kernel each beside the product)
    before: LayerNormalization, modulation, SiLU, GELU, Sub, Mul, Div, Clip, Max/Min, Split, Concat
    (of 16-bit values), Transpose, Reshape, the row factor Abs-ReduceMax-Max-Div of linears, a
    factor per step by Gather from a table, and Q, together. Several Q of one tensor too.
    GroupNormalization (or InstanceNormalization with gain 1 between Reshapes) fuses with SiLU, not
    with Q: one kernel more, two at 64x64 and above. With another gain it falls apart into five.
    Row factors of convolutions: a kernel for ReduceMax (two over [C, H, W]).
    Resize of codes is a kernel (`runtime_function`); Q moves ahead of it.
    after: scale, row factor, bias (Add with a constant), sum of segments, residual, activation, and
    the next Q, together.
    Erf GELU needs a row factor before it to fuse; tanh GELU and SiLU always do.
    INT8 linears have one kernel more than FP16 ones: the epilogue that FP16 needs for its bias
    takes the scales, and Q is a kernel only where nothing precedes it.

Silently not 8-bit
    weight scales along K, activation scales per channel, scales computed by the graph, Mul between
    DQ and MatMul, Concat of DQs with other scales: `runtime_fusion ... Fc` that multiplies in 16
    bits. (For convolutions a 16-bit `correlation` behind a dequantising kernel.)
    Weights of INT8 or INT4 without Q on the data: the same, on purpose. INT4 codes with Q on the
    data are widened in a kernel of every call.
Silently wrong
    A uint8 zero point of 0, or none (ONNX's default is uint8): read as int8, at most a warning.
Errors
    non-zero zero points, DQ of int32 (biases of ONNX Runtime's quantiser), FP16 with FP32, FP16
    with BF16, INT8 weights in blocks, anything between codes and their DQ, FP8 for sm_75, sm_80,
    sm_86.

Attention
    `_gemm_mha_v2`: MatMul, scale, Softmax, MatMul in FP16 or BF16, any head size, all GPUs; in FP8
    with Q/DQ on query, key, value and on the softmax. FP32 and INT8 stay two gemms and a softmax
    that writes all scores. `Attention` of opset 23 fuses in 16 bits, fails to build in FP32, and
    Q/DQ on its inputs are computed and undone before it, which only costs. The Q of the next linear
    joins a fused attention in 16 bits. Transposes of heads join the kernels before and after.

Names
    A layer carries the names of its ONNX nodes; within a local function "node | call (Function)".
    Local functions are inlined. Several profiles repeat every layer. Layers that only move data,
    and epilogues whose Mul and Add are nodes of their own, do not carry the product's name.

Engines
    One engine may serve several compute capabilities at next to no size; FP8 then needs it of all.
"""

from segquant_trt.backends.tensorrt.rtx.builder import (
    RtxEngine,
    available,
    build,
    build_each,
    build_portable,
)
from segquant_trt.backends.tensorrt.rtx.capability import CAPABILITIES
from segquant_trt.backends.tensorrt.rtx.prove import EngineProof, products_of, prove
from segquant_trt.backends.tensorrt.rtx.shapes import Profile, ShapeRange

__all__ = [
    "CAPABILITIES",
    "EngineProof",
    "Profile",
    "RtxEngine",
    "ShapeRange",
    "available",
    "build",
    "build_each",
    "build_portable",
    "products_of",
    "prove",
]
