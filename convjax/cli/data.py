"""`convjax data NAME`: what is in a data set."""

import dataclasses
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table

from convjax.cli.console import console
from convjax.data import paths, splits
from convjax.data.augment import Augment
from convjax.data.loader import Batch
from convjax.data.sheets import contact_sheet, tiles
from convjax.errors import UsageError
from convjax.train.config import DataConfig
from convjax.train.step import augmented


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Describes a data set: splits, shape, classes and their balance, mean and deviation; draws examples."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """digits, synthetic, a TFDS set (name, name/config, name:1.2.3), or a path: ./FOLDER, FILE.csv, .jsonl or .tar."""
    directory: str | None = None
    """TFDS data directory; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets. Or where a relative path begins."""
    image_size: int | None = None
    """Side in pixels to which images are resized and cropped."""
    validation: float = 0.1
    """Share of the train split that a run keeps for validation."""
    broken_limit: int = 0
    """Images that may be damaged, and are left out; one more is an error."""
    sheet: Path | None = None
    """Where to write the contact sheet of examples; None writes NAME.png."""
    examples: int = 50
    """Pictures on the contact sheet."""
    augment: Augment = Augment()
    """Show what a training run does to examples: each row has one as it is, and then as the first nine steps see it."""


_COLUMNS = 10


def run(arguments: list[str]) -> None:
    """Prints the description and writes the contact sheet."""
    parsed = tyro.cli(Arguments, prog="convjax data", args=arguments)
    # Checks the values.
    DataConfig(parsed.name, parsed.directory, parsed.image_size, parsed.validation, broken_limit=parsed.broken_limit)
    if parsed.examples < 1:
        raise UsageError(f"--examples is {parsed.examples}: it must be at least 1")
    data = splits.load(
        parsed.name,
        directory=parsed.directory,
        image_size=parsed.image_size,
        validation=parsed.validation,
        lazy=True,
        broken_limit=parsed.broken_limit,
    )
    info = data.info

    out = console()
    out.print(f"{info.name} {info.version}: {len(info.class_names)} classes, images {' x '.join(map(str, info.image))}")
    for kind, values in (("mean", info.normalise.mean), ("deviation", info.normalise.std)):
        out.print(f"{kind} of the train split by channel (0..1): {', '.join(f'{v:.4f}' for v in values)}")
    table = Table("class", *info.examples, box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    counts = [np.bincount(s.labels, minlength=len(info.class_names)) for s in data.splits.values()]
    for i, name in enumerate(info.class_names):
        table.add_row(name, *(str(c[i]) for c in counts))
    table.add_row("all", *map(str, info.examples.values()), style="bold")
    out.print(table)

    name = Path(parsed.name).resolve().stem if paths.is_path(parsed.name) else parsed.name
    path = parsed.sheet or Path(f"{name.replace('/', '_').replace(':', '_')}.png")
    plain = parsed.augment == Augment()
    count = parsed.examples if plain else 2 * -(-parsed.examples // (2 * _COLUMNS))
    if count > len(data.splits["train"]) and not plain:
        raise UsageError(f"--augment shows pairs of examples: {info.name} has {len(data.splits['train'])} to train on")
    chosen = data.splits["train"].take(np.arange(min(count, len(data.splits["train"]))))
    try:
        if plain:
            sheet = contact_sheet(np.asarray(chosen.images), chosen.labels.tolist(), info.class_names)
        else:
            sheet = _augmented(parsed.augment, np.asarray(chosen.images), chosen.labels, info.class_names)
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"--sheet {path} cannot be written: {error}") from error
    out.print(f"examples drawn in {path}", soft_wrap=True)


def _augmented(
    augment: Augment, images: NDArray[np.uint8], labels: NDArray[np.int32], class_names: tuple[str, ...]
) -> Image.Image:
    """Draws examples, one a row, and beside each what a run of seed 0 makes of it in its first steps, as many epochs.

    Underneath stands, of an image that is mixed with that of the next row or of the one before, how much is its own.
    """

    @jax.jit
    def seen(step: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        mixed, targets = augmented(augment, 0, step, batch)
        return mixed.astype(jnp.uint8), targets.share

    ids = np.arange(len(images))
    columns = [images]
    captions = [[class_names[label] for label in labels]]
    for step in range(_COLUMNS - 1):
        batch = Batch(*map(jnp.asarray, (images, labels, ids, np.full_like(ids, step))))
        pictures, shares = jax.device_get(seen(step, batch))
        columns.append(pictures)
        captions.append([f"{100 * share:.0f} %" if augment.mix.on else "" for share in shares])
    rows = [picture for row in zip(*columns, strict=True) for picture in row]
    return tiles(rows, [caption for row in zip(*captions, strict=True) for caption in row], columns=_COLUMNS)
