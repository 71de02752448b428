"""`convjax export RUN_OR_WEIGHTS --to FORMAT -o FILE`: a network as a file for other programs."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from convjax.cli.arguments import Checkpoint
from convjax.cli.console import console
from convjax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Arguments(Checkpoint):
    """Writes a network as a file that other programs run.

    stablehlo and onnx hold preprocessing and network: any number of uint8 images in, logits out. safetensors holds
    the variables alone, as `convjax weights export` writes them. RUN may also be a directory that
    `convjax weights import` made.
    """

    to: Literal["stablehlo", "onnx", "safetensors"] = dataclasses.field(kw_only=True)
    """stablehlo is run by jax.export, without convjax; onnx by ONNX Runtime and others, without JAX."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = dataclasses.field(kw_only=True)
    """File to write, ending in a dot and the format."""


def run(arguments: list[str]) -> None:
    """Writes the file."""
    parsed = tyro.cli(Arguments, prog="convjax export", args=arguments)
    which = parsed.which()
    if parsed.output.suffix != f".{parsed.to}":
        raise UsageError(f"-o is {parsed.output}: it must end in .{parsed.to}")
    if not parsed.output.parent.is_dir():
        raise UsageError(f"-o is {parsed.output}: there is no directory {parsed.output.parent}")

    # JAX is imported only now: --help need not wait for it.
    from convjax.interop import export
    from convjax.train import weights

    network = weights.of(parsed.run, which)
    export.write(network, parsed.output, parsed.to)
    size = f"{parsed.output.stat().st_size / 1e6:.1f} MB"
    out = console()
    out.print(f"{parsed.output}: {size}", soft_wrap=True)
    if parsed.to != "safetensors":
        shape = ", ".join(map(str, network.image))
        out.print(f"images: uint8 [batch, {shape}] -> logits: float32 [batch, {len(network.class_names)}]")
    if parsed.to == "stablehlo":
        out.print(f"{export.sidecar(parsed.output)}: classes, model, preprocessing", soft_wrap=True)
