"""`convjax weights import|export`: weights of PyTorch's libraries in and out."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import tyro

from convjax.cli.console import console
from convjax.errors import UsageError

Library: TypeAlias = Literal["torchvision", "timm", "lukemelas", "airbench"]
"""As in `convjax.interop.torch_families`, which imports all of JAX."""


@dataclasses.dataclass(frozen=True)
class Import:
    """Makes a directory of weights out of a file of PyTorch; nothing in the file is run.

    `convjax predict DIR IMAGE...` classifies with them.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """.safetensors, or what torch.save wrote (.pth, .pt, .bin)."""
    model: str
    """Name of the network, one of those that `convjax models` lists."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Directory to make."""
    library: Annotated[Library | None, tyro.conf.arg(name="from")] = None
    """Whose names the file has; by default torchvision's, or timm's where torchvision has no such network."""
    num_classes: int = 1000
    """Number of classes."""
    size: int | None = None
    """Side of the images in pixels, if not the network's usual one."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Writes imported weights, or a run's best checkpoint, as safetensors with the names of a library of PyTorch."""

    weights: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Directory of weights or of a run."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """File to write, .safetensors."""
    library: Annotated[Library | None, tyro.conf.arg(name="to")] = None
    """Whose names; by default torchvision's, or timm's where torchvision has no such network."""


def run(arguments: list[str]) -> None:
    """Imports or exports."""
    commands = {"import": (Import, _import), "export": (Export, _export)}
    if not arguments or arguments[0] not in commands:
        usage = "usage: convjax weights import|export ...; convjax weights import --help tells more"
        if arguments and arguments[0] in ("-h", "--help"):
            print(usage)
            return
        raise UsageError(usage)
    kind, action = commands[arguments[0]]
    action(tyro.cli(kind, prog=f"convjax weights {arguments[0]}", args=arguments[1:]))  # type: ignore[operator]


def _import(parsed: Import) -> None:
    if parsed.output.exists():
        raise UsageError(f"{parsed.output} exists already: take another name")

    # JAX is imported only now: --help need not wait for it.
    from convjax.interop import weights

    found = weights.import_file(
        parsed.file, parsed.model, library=parsed.library, size=parsed.size, num_classes=parsed.num_classes
    )
    found.write(parsed.output)
    console().print(f"{parsed.output}: {parsed.model} with the weights of {parsed.file}", soft_wrap=True)


def _export(parsed: Export) -> None:
    if parsed.output.suffix != ".safetensors":
        raise UsageError(f"-o is {parsed.output}: it must end in .safetensors")

    from convjax.interop import export
    from convjax.train import weights

    export.write(weights.of(parsed.weights), parsed.output, "safetensors", library=parsed.library)
    console().print(f"{parsed.output}: written", soft_wrap=True)
