"""Equations of a jaxpr that work value by value, or over whole axes, as nodes of ONNX."""

import jax.numpy as jnp
import numpy as np
import onnx.helper
from jax.extend.core import JaxprEqn

from convjax.interop.onnx_graph import CHANNELS_LAST, Graph, Tensor, Unsupported, Value, dtype_of, shape_of

UNARY = {
    "abs": "Abs",
    "ceil": "Ceil",
    "cos": "Cos",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "logistic": "Sigmoid",
    "neg": "Neg",
    "not": "Not",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}
BINARY = {
    "add": "Add",
    "and": "And",
    "div": "Div",
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "or": "Or",
    "pow": "Pow",
    "sub": "Sub",
}
COMPOSED = (
    "clamp", "convert_element_type", "erfc", "expm1", "integer_pow", "log1p", "ne", "rsqrt", "select_n", "square",
)  # fmt: skip
"""What takes other operands, or several nodes."""
REDUCTIONS = {
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_sum": "ReduceSum",
}


def elementwise(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes what works value by value; ONNX stretches axes of length 1 and scalars as jaxprs do."""
    first = any(isinstance(value, Tensor) and value.channels_first for value in inputs)
    names = [graph.name(value, channels_first=first) for value in inputs]
    return Tensor(_operate(graph, equation, inputs, names), shape_of(equation.outvars[0]), first)


def _operate(graph: Graph, equation: JaxprEqn, inputs: list[Value], names: list[str]) -> str:
    primitive, params = equation.primitive.name, equation.params
    dtype = dtype_of(equation.invars[0])

    def one() -> str:
        return graph.constant(1, dtype)

    match primitive:
        case "max" | "min" if dtype == np.float32 and (bound := _bound(inputs)) is not None:
            tensor, limit = bound
            if primitive == "max" and limit == 0:
                return graph.node("Relu", names[tensor])
            limits = (names[1 - tensor], "") if primitive == "max" else ("", names[1 - tensor])
            return graph.node("Clip", names[tensor], *limits)
        case "and" | "or" | "not" if dtype != np.bool_:
            raise Unsupported(f"of {dtype} numbers")
        case _ if primitive in UNARY:
            return graph.node(UNARY[primitive], *names)
        case _ if primitive in BINARY:
            return graph.node(BINARY[primitive], *names)
        case "convert_element_type" if params["new_dtype"] == jnp.bfloat16:
            raise Unsupported("to bfloat16, in which few programs run ONNX")
        case "convert_element_type":
            return graph.node("Cast", *names, to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(params["new_dtype"])))
        case "ne":
            return graph.node("Not", graph.node("Equal", *names))
        case "square":
            return graph.node("Mul", names[0], names[0])
        case "rsqrt":
            return graph.node("Reciprocal", graph.node("Sqrt", *names))
        case "integer_pow":
            return graph.node("Pow", names[0], graph.constant(params["y"], dtype))
        case "erfc":
            return graph.node("Sub", one(), graph.node("Erf", *names))
        case "expm1":
            return graph.node("Sub", graph.node("Exp", *names), one())
        case "log1p":
            return graph.node("Log", graph.node("Add", names[0], one()))
        case "clamp":
            low, x, high = names
            return graph.node("Min", graph.node("Max", x, low), high)
        case "select_n" if len(names) == 3 and dtype == np.bool_:
            return graph.node("Where", names[0], names[2], names[1])
    raise Unsupported("with these operands")


def _bound(inputs: list[Value]) -> tuple[int, float] | None:
    """Returns which operand is bounded by the other, and by what, where that is one number."""
    for i, other in enumerate(reversed(inputs)):
        if isinstance(other, np.ndarray) and other.size == 1 and other.ndim == 0:
            return i, float(other)
    return None


def identity(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Value:
    """Writes nothing: the value stays what it is."""
    return inputs[0]


def reduce(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes sums, products and extremes over axes."""
    (x,) = inputs
    axes: tuple[int, ...] = equation.params["axes"]
    if not axes:
        raise Unsupported("over no axis")  # ONNX takes that for all
    # Left in their layout are sums over pixels, and over channels: what remains is in order then.
    first = isinstance(x, Tensor) and x.channels_first and (3 in axes or {1, 2} <= set(axes))
    places = sorted(CHANNELS_LAST[axis] for axis in axes) if first else axes
    name = graph.node(
        REDUCTIONS[equation.primitive.name], graph.name(x, channels_first=first), graph.indices(*places), keepdims=0
    )
    return Tensor(name, shape_of(equation.outvars[0]))
