"""Functions of images as ONNX models, written from their jaxprs."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
import onnx
import onnx.checker
import onnx.helper
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from convjax.errors import UsageError, model_error
from convjax.interop import onnx_elementwise, onnx_shapes, onnx_windows
from convjax.interop.onnx_graph import Graph, Tensor, Unsupported, Value, dtype_of, is_static, shape_of
from convjax.ops import jaxprs

OPSET, IR_VERSION = 18, 8
"""Of 2022: whatever reads ONNX today reads them."""
LIMIT = 2**31 - 2**20
"""Bytes of constants: a message of Protocol Buffers holds 2 GiB, of which the nodes need some."""

Rule: TypeAlias = Callable[[Graph, JaxprEqn, list[Value]], Any]

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (*onnx_elementwise.UNARY, *onnx_elementwise.BINARY, *onnx_elementwise.COMPOSED), onnx_elementwise.elementwise
    ),
    **dict.fromkeys(("copy", "copy_p", "name", "stop_gradient"), onnx_elementwise.identity),
    **dict.fromkeys(onnx_elementwise.REDUCTIONS, onnx_elementwise.reduce),
    **dict.fromkeys(("expand_dims", "reshape", "squeeze"), onnx_shapes.reshape),
    "broadcast_in_dim": onnx_shapes.broadcast,
    "concatenate": onnx_shapes.concatenate,
    "conv_general_dilated": onnx_windows.convolution,
    "dot_general": onnx_windows.product,
    "gather": onnx_shapes.gather,
    "pad": onnx_shapes.pad,
    "reduce_window_max": onnx_windows.pooling,
    "reduce_window_sum": onnx_windows.pooling,
    "rev": onnx_shapes.reverse,
    "slice": onnx_shapes.slice_,
    "split": onnx_shapes.split,
    "stack": onnx_shapes.stack,
    "transpose": onnx_shapes.transpose,
}
"""How each primitive is written."""


def to_onnx(
    function: Callable[[Any, jax.Array], jax.Array],
    variables: Any,
    image: tuple[int, int, int],
    description: Mapping[str, Any],
) -> bytes:
    """Returns the ONNX model of a function of variables and images, for any number of images.

    Whatever does not depend on the images is computed here and becomes a constant.

    Args:
        function: of variables and uint8 images `[N, H, W, C]`, to float32 logits `[N, K]`.
        variables: a pytree of arrays.
        image: (height, width, channels).
        description: what is kept with the model, under the same names: text as it is, anything else as JSON.

    Raises:
        UsageError: the function takes only certain numbers of images, has an equation that is not written as ONNX,
            or has more constants than one file of ONNX holds.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image), np.uint8)
    try:
        closed = jax.make_jaxpr(function)(variables, images)
    except Exception as error:
        raise model_error(error, images.shape) from error
    graph = Graph("images")
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(variables)]
    (logits,) = _write(graph, closed.jaxpr, closed.consts, [*leaves, Tensor("images", images.shape)], "")
    graph.scope = ""
    output = graph.name(logits)
    nodes, constants = graph.used(output)
    if (size := sum(len(constant.raw_data) for constant in constants)) > LIMIT:
        raise UsageError(f"the network's constants have {size / 1e9:.1f} GB: more than one file of ONNX holds")
    nodes.append(onnx.helper.make_node("Identity", [output], ["logits"], name="logits"))
    classes = closed.out_avals[0].shape[1]
    made = onnx.helper.make_graph(
        nodes,
        "convjax",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["batch", *image])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", classes])],
        constants,
    )
    model = onnx.helper.make_model(
        made, producer_name="convjax", ir_version=IR_VERSION, opset_imports=[onnx.helper.make_opsetid("", OPSET)]
    )
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in description.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _write(graph: Graph, jaxpr: Jaxpr, constants: Any, arguments: list[Value], outer: str) -> list[Value]:
    """Writes a jaxpr, and returns the values of its outputs."""
    values: dict[Any, Value] = {
        **dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True)),
        **dict(zip(jaxpr.invars, arguments, strict=True)),
    }

    def read(variable: Any) -> Value:
        return np.asarray(variable.val, dtype_of(variable)) if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        scope = "/".join(filter(None, (outer, str(equation.source_info.name_stack))))
        found = _equation(graph, equation, [read(variable) for variable in equation.invars], scope)
        values.update(zip(equation.outvars, found, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _equation(graph: Graph, equation: JaxprEqn, inputs: list[Value], scope: str) -> list[Value]:
    """Writes an equation, or computes it where it does not depend on the images."""
    name = equation.primitive.name
    if inner := jaxprs.evaluated(equation):
        return _write(graph, inner.jaxpr, inner.consts, inputs, scope)
    # The number of images is no constant, though its equation has no operands.
    static = name != "dim_as_value" and all(is_static(shape_of(variable)) for variable in equation.outvars)
    if static and not any(isinstance(value, Tensor) for value in inputs):
        result = equation.primitive.bind(*inputs, **equation.params)
        return [np.asarray(array) for array in (result if equation.primitive.multiple_results else [result])]
    graph.scope = scope
    try:
        if name not in RULES:
            raise Unsupported("at all")
        written = RULES[name](graph, equation, inputs)
    except Unsupported as error:
        raise UsageError(
            f"the network's {name} in {scope or 'the model'} cannot be written as ONNX: convjax does not write {name} "
            f"{error}; --to stablehlo takes any network"
        ) from error
    return written if isinstance(written, list) else [written]
