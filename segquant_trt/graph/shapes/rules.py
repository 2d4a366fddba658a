"""Which rule gives the shape behind which operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import NodeProto

from segquant_trt.graph.shapes import arithmetic, movement, selection
from segquant_trt.graph.shapes.knowledge import Shape, Shapes

Rule = Callable[[NodeProto, Shapes], Sequence[Shape | None]]

_SAME = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization", "Bernoulli",
    "BitwiseNot", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "CumSum",
    "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "GroupNormalization",
    "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "IsInf", "IsNaN",
    "LRN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization",
    "MeanVarianceNormalization", "Mish", "Neg", "Not", "PRelu", "QuantizeLinear",
    "RMSNormalization", "RandomNormalLike", "RandomUniformLike", "Reciprocal", "Relu",
    "RotaryEmbedding", "Round", "ScatterElements", "ScatterND", "Selu", "Shrink", "Sigmoid", "Sign",
    "SimplifiedLayerNormalization", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt",
    "SwiGLU", "Swish", "Tan", "Tanh", "TensorScatter", "ThresholdedRelu", "Trilu",
    "FastGelu", "BiasGelu", "QuickGelu", "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
)  # fmt: skip
_JOINT = (
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub",
    "Sum", "Where", "Xor",
)  # fmt: skip
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip

# Operators of ONNX Runtime's own domain whose rule is the one of that name here.
_CONTRIBUTED = frozenset(
    ("BiasGelu", "DequantizeLinear", "FastGelu", "Gelu", "MultiHeadAttention", "QuantizeLinear",
     "QuickGelu", "SimplifiedLayerNormalization", "SkipLayerNormalization",
     "SkipSimplifiedLayerNormalization")
)  # fmt: skip

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_SAME, arithmetic.same),
    **dict.fromkeys(_JOINT, arithmetic.joint),
    **dict.fromkeys(_REDUCTIONS, arithmetic.reduce_),
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), arithmetic.pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), arithmetic.global_pool),
    **dict.fromkeys(("ArgMax", "ArgMin"), arithmetic.arg_reduce),
    **dict.fromkeys(("SpaceToDepth", "DepthToSpace"), movement.space_to_depth),
    **dict.fromkeys(("Resize", "Upsample"), movement.resize),
    "Attention": arithmetic.attention,
    "Concat": movement.concat,
    "ConcatFromSequence": arithmetic.concat_from_sequence,
    "ConstantOfShape": movement.constant_of_shape,
    "Conv": arithmetic.conv,
    "ConvTranspose": arithmetic.conv_transpose,
    "Einsum": arithmetic.einsum,
    "Expand": movement.expand,
    "Flatten": movement.flatten,
    "Gather": selection.gather,
    "GatherND": selection.gather_nd,
    "Gemm": arithmetic.gemm,
    "MatMul": arithmetic.matmul,
    "MultiHeadAttention": arithmetic.multi_head_attention,
    "NonZero": arithmetic.non_zero,
    "OneHot": arithmetic.one_hot,
    "Pad": movement.pad,
    "Range": movement.range_,
    "Reshape": movement.reshape,
    "SequenceAt": arithmetic.sequence_at,
    "SequenceConstruct": arithmetic.sequence_construct,
    "Shape": arithmetic.shape_of,
    "Size": arithmetic.scalar,
    "Slice": selection.slice_,
    "Split": selection.split,
    "SplitToSequence": arithmetic.split_to_sequence,
    "Squeeze": movement.squeeze,
    "Tile": movement.tile,
    "TopK": arithmetic.top_k,
    "Transpose": movement.transpose,
    "Unsqueeze": movement.unsqueeze,
}


def contributed(node: NodeProto) -> bool:
    """Whether the operator is one of ONNX Runtime's that is known here."""
    return node.domain == "com.microsoft" and node.op_type in _CONTRIBUTED
