"""`convjax profile EXPERIMENT_OR_MODEL_OR_RUN`: where the time of a training step goes."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from convjax.cli.arguments import require_at_least
from convjax.cli.console import console
from convjax.errors import UsageError

if TYPE_CHECKING:
    from convjax.profile.look import Look
    from convjax.profile.rows import Cost, Row
    from convjax.profile.subject import Subject

_MODEL_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Takes some training steps and tells, layer by layer, how long they take, and what holds them up.

    After an experiment's file or a model's name, the flags of `convjax train` are flags here too, as
    --train.batch-size 64. A model alone is given images of noise, 16 a step unless flags say otherwise.
    """

    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT|MODEL|RUN")]
    """An experiment's file, one of the models that `convjax models` lists, or the directory of a run."""
    depth: int = 1
    """How many levels of modules to list, each with all that is inside of it; 0 lists the whole model."""
    steps: int = 10
    """Steps that are timed; at most 5 of them once more with the profiler looking on."""
    size: int | None = None
    """Side of a model's images in pixels; None takes the size that it is published for."""
    trace: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where to leave the profiler's trace, for TensorBoard and Perfetto."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        require_at_least(self, depth=0, steps=1, size=1)


def run(arguments: list[str]) -> None:
    """Prints what was found."""
    parsed, flags = tyro.cli(Arguments, prog="convjax profile", args=arguments, return_unknown_args=True)

    # JAX is imported only now: --help need not wait for it.
    from convjax.profile import rows
    from convjax.profile.look import look
    from convjax.train import failures

    # Kept programs are not taken: they are found by what they compute, and may have the layers' names of another model.
    subject = _subject(parsed, flags)
    if parsed.trace is not None:
        _require_directory(parsed.trace)
    with failures.explained(), Console(stderr=True).status("reading the data") as status:
        found = look(subject, parsed.steps, parsed.trace, say=status.update)
    table = rows.rows(found, parsed.depth)
    if parsed.json:
        print(json.dumps(_json(subject, found, table)))
    else:
        _print(subject, found, table)
        if parsed.trace is not None:
            print(f"\ntrace: {parsed.trace} (TensorBoard; perfetto_trace.json.gz in it for https://ui.perfetto.dev)")


def _subject(parsed: Arguments, flags: list[str]) -> "Subject":
    from convjax.cli.network import named
    from convjax.profile import subject
    from convjax.train.config import TrainConfig

    kind, config, image = named("profile", parsed.network, flags, TrainConfig(batch_size=_MODEL_BATCH))
    if kind == "model":
        return subject.model(config, (parsed.size or image[0], parsed.size or image[1], image[2]))
    if parsed.size is not None:
        raise UsageError("--size is for a model alone: images of data are resized by --data.image-size")
    return subject.experiment(config)


def _require_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--trace is {directory}: it cannot be made a directory: {error.strerror}") from None


def _print(subject: "Subject", found: "Look", table: list["Row"]) -> None:
    from convjax.profile.rows import Cost

    out = console()
    batch, image = subject.config.train.batch_size, " x ".join(map(str, subject.data.info.image))
    where = "" if found.kernels is None else f", CPU kernels {found.kernels}"
    out.print(f"{type(subject.config.model).__name__}, a training step on {batch} images of {image}{where}\n")
    layers = Table(box=None, header_style="bold")
    layers.add_column("layer")
    layers.add_column("class")
    for column in ("forward", "backward", "share", "MMACs", "MiB", "of peak", "of roofline"):
        layers.add_column(column, justify="right")
    layers.add_column("bound by")
    for row in table:
        times = (_ms(row.forward.seconds), _ms(row.backward.seconds) if row.layer is not None else "")
        label = f"({row.name})" if row.layer is None else row.layer or "(the model)"
        layers.add_row(label, row.kind, *times, *_numbers(row.both, found), row.both.bound or "")
    layers.add_row("(no operation)", "", _ms(found.idle), "", _percent(found.idle, found.traced))
    sums = [sum((getattr(row, way) for row in table), Cost()) for way in ("forward", "backward")]
    seconds = [_ms(total.seconds) for total in sums]
    layers.add_row("total", "", *seconds, *_numbers(sums[0] + sums[1], found), style="bold")
    out.print(layers)
    out.print()
    out.print(_facts(batch, found))


def _numbers(cost: "Cost", found: "Look") -> tuple[str, ...]:
    """Returns the cells of share, multiply-accumulates, bytes, share of the peak and of the roofline."""
    arithmetic = found.machine.arithmetic(cost.multiply_accumulates)
    return (
        _percent(cost.seconds, found.traced),
        f"{cost.multiply_accumulates / 1e6:,.1f}",
        f"{cost.bytes / 2**20:,.1f}",
        _percent(arithmetic, cost.seconds) if arithmetic else "",
        _percent(cost.least, cost.seconds) if cost.least else "",
    )


def _facts(batch: int, found: "Look") -> Table:
    """Returns what is to be said of the step as a whole, line by line."""
    facts = Table(box=None, show_header=False)
    facts.add_row(
        "step",
        f"{_ms(found.step)}, {batch / found.step:,.0f} images a second"
        f" ({_ms(found.traced)} while the profiler looked on)",
    )
    facts.add_row(
        "machine",
        f"{found.machine.peak / 1e9:,.1f} GFLOP/s in a matrix product, {found.machine.bandwidth / 1e9:,.1f} GB/s; "
        f"the step reaches {100 * found.share_of_peak:.1f} % of the peak",
    )
    if found.waited is None or found.waiting is None:
        facts.add_row("loop", "not looked at: the images are noise")
    else:
        facts.add_row(
            "loop",
            f"{found.verdict}: before each step it waits {_ms(found.waited)} for data, "
            f"{100 * found.waiting:.1f} % of its time",
        )
    if (memory := found.memory) is not None:
        needed, *sizes = (decimal(size) for size in (memory.needed, *dataclasses.astuple(memory)))
        text = "{}: arguments {}, outputs {} of which {} in their place, temporary {}, program {}"
        facts.add_row("memory", text.format(needed, *sizes))
    return facts


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f} ms"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _json(subject: "Subject", found: "Look", table: list["Row"]) -> dict[str, Any]:
    config, info = subject.config, subject.data.info

    def cost(of: "Cost") -> dict[str, Any]:
        return {
            "multiply_accumulates": of.multiply_accumulates,
            "bytes": of.bytes,
            "seconds": of.seconds,
            "roofline_seconds": of.least,
            "bound": of.bound,
        }

    memory = found.memory
    return {
        "model": type(config.model).__name__,
        "batch_size": config.train.batch_size,
        "image": info.image,
        "data": None if subject.is_noise else info.name,
        "cpu_kernels": found.kernels,
        "devices": found.devices,
        "machine": {"operations_per_s": found.machine.peak, "bytes_per_s": found.machine.bandwidth},
        "step": {
            "seconds": found.step,
            "traced_seconds": found.traced,
            "idle_seconds": found.idle,
            "images_per_s": config.train.batch_size / found.step,
            "multiply_accumulates": found.multiply_accumulates,
            "share_of_peak": found.share_of_peak,
        },
        "loop": {"waited_seconds": found.waited, "share_waited": found.waiting, "verdict": found.verdict},
        "memory": None if memory is None else {**dataclasses.asdict(memory), "needed": memory.needed},
        "layers": [
            {
                "layer": row.layer,
                "part": row.name or None,
                "class": row.kind or None,
                "forward": cost(row.forward),
                "backward": cost(row.backward),
            }
            for row in table
        ],
    }
