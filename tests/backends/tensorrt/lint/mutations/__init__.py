"""Ways in which quantised graphs go wrong, and ways in which they only look as if they did."""

from tests.backends.tensorrt.lint.editor import Mutation
from tests.backends.tensorrt.lint.mutations.activations import ACTIVATIONS
from tests.backends.tensorrt.lint.mutations.files import FILES
from tests.backends.tensorrt.lint.mutations.scales import SCALES
from tests.backends.tensorrt.lint.mutations.weights import WEIGHTS

MUTATIONS: dict[str, Mutation] = {**SCALES, **WEIGHTS, **ACTIVATIONS, **FILES}
