"""Times input pipelines on JPEGs of ImageNet's size, in turn, and prints images a second and ratios.

    make bench-data
    python benchmarks/data.py [--rounds 7] [--images 1000] [--memory 0]

Each decodes the same files to batches of random parts, 224 pixels a side, on the same two cores: convjax; PyTorch's
DataLoader with torchvision's transforms on Pillow, and as timm sets it up; tf.data as Flax's ImageNet example has it.
A round is a pass of each over all files. Printed are medians over rounds of the images a second by the clock, and a
CPU second (which other work on the machine disturbs less), and the ratio of convjax to each, of one round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SIDE, BATCH, CORES = 224, 100, 2
PYTHON = {
    "convjax": ".venv",
    "torchvision": ".venv-certify",
    "timm": ".venv-certify",
    "tf.data": ".venv-bench-data",
}
"""Contenders, and the environment that each runs in."""


def convjax(folder: Path) -> Callable[[], Iterator[Any]]:
    import itertools

    import jax

    from convjax.data import loader, splits
    from convjax.data.order import Draws
    from convjax.data.random_crop import ResizedCrop
    from convjax.data.records import Training
    from convjax.train.parallel import Placement

    training = Training(ResizedCrop((0.08, 1.0)), 0)
    data = splits.load(
        str(folder), directory=None, image_size=SIDE, validation=0.0, lazy=True, training=training
    ).splits["train"]
    feed, rounds = loader.feed("streamed", data, Placement.single()), itertools.count()

    draws = Draws(0, BATCH, len(data))

    def batches() -> Iterator[Any]:
        number, count = next(rounds), len(data) // BATCH
        for batch in feed.batches(draws.ids, number * count, (number + 1) * count, draws.epochs):
            yield jax.block_until_ready(batch).images

    return batches


def torchvision(folder: Path) -> Callable[[], Iterator[Any]]:
    import torch
    from torchvision import datasets, transforms

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIDE),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(folder / "train"), transform),
        BATCH,
        shuffle=True,
        num_workers=CORES,
        persistent_workers=True,
    )
    return lambda: (images for images, _ in loader)


def timm(folder: Path) -> Callable[[], Iterator[Any]]:
    import torch
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", root=str(folder), split="train", is_training=True),
        (3, SIDE, SIDE),
        BATCH,
        is_training=True,
        color_jitter=0.0,
        num_workers=CORES,
        persistent_workers=True,
        device=torch.device("cpu"),
    )
    # What is below its prefetcher: bytes, as ours, that a device would normalise.
    return lambda: (images for images, _ in loader.loader)


def tf_data(folder: Path) -> Callable[[], Iterator[Any]]:
    import tensorflow as tf

    files = [str(path) for path in sorted((folder / "train").glob("*/*.jpg"))]
    mean, deviation = ([255 * v for v in values] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def example(name: Any) -> Any:
        content = tf.io.read_file(name)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(content),
            bounding_boxes=tf.zeros((1, 0, 4)),
            area_range=(0.08, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.io.decode_and_crop_jpeg(content, window, channels=3)
        image = tf.image.resize([image], [SIDE, SIDE], method=tf.image.ResizeMethod.BICUBIC)[0]
        image = tf.image.random_flip_left_right(image)
        return (image - tf.constant(mean)) / tf.constant(deviation)

    data = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files))
    data = data.map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True)
    options = tf.data.Options()
    options.threading.private_threadpool_size = CORES
    return data.prefetch(tf.data.AUTOTUNE).with_options(options).as_numpy_iterator


CONTENDERS = {"convjax": convjax, "torchvision": torchvision, "timm": timm, "tf.data": tf_data}


def serve(name: str, folder: Path) -> None:
    """Takes a pass for each line that is read, and answers with seconds and images."""
    batches = CONTENDERS[name](folder)
    for _ in sys.stdin:
        began, count = time.perf_counter(), 0
        for images in batches():
            count += len(images)
        print(json.dumps([time.perf_counter() - began, count]), flush=True)


class Contender:
    """A pipeline in a process of its own, in its own environment."""

    def __init__(self, name: str, folder: Path) -> None:
        python = ROOT / PYTHON[name] / "bin" / "python"
        if not python.exists():
            sys.exit(f"there is no {python}: `make bench-data` makes it")
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen(
            [python, __file__, "--serve", name, "--folder", folder],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def take_pass(self) -> tuple[float, float]:
        """Returns images a second by the clock, and a CPU second of all its processes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        before = self.cpu_seconds()
        print(file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{' '.join(map(str, self.process.args))} has failed")  # type: ignore[arg-type]
        seconds, count = json.loads(answer)
        return count / seconds, count / (self.cpu_seconds() - before)

    def cpu_seconds(self) -> float:
        return sum(_cpu_seconds(pid) for pid in _family(self.process.pid))

    def megabytes(self) -> float:
        """Returns the memory of its first process that is no file's."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) / 1024


def _family(pid: int) -> list[int]:
    children = [int(c) for f in Path(f"/proc/{pid}/task").glob("*/children") for c in f.read_text().split()]
    return [pid, *(member for child in children for member in _family(child))]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_images(folder: Path, count: int) -> float:
    """Writes JPEGs of random parts of scikit-image's photographs, and returns their mean size in kB."""
    import io

    import numpy as np
    from PIL import Image
    from skimage import data

    names = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry", "grass", "gravel")
    photographs = [Image.fromarray(getattr(data, name)()).convert("RGB") for name in names]
    rng, sizes = np.random.default_rng(0), []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        width, height = (500, 375) if rng.random() < 0.8 else (375, 500)
        share = rng.uniform(0.6, 1)
        w, h = share * photograph.width, share * photograph.width * height / width
        w, h = (w, h) if h <= photograph.height else (photograph.height * width / height, photograph.height)
        left, top = rng.uniform(0, photograph.width - w), rng.uniform(0, photograph.height - h)
        part = photograph.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + w, top + h))
        # A camera's noise, which enlarging took away, and with it the size of a photograph's file.
        noisy = np.asarray(part, np.float32) + rng.normal(0, 6, (height, width, 1))
        file = io.BytesIO()
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=94)
        split = folder / "train" / str(number % 10)
        split.mkdir(parents=True, exist_ok=True)
        (split / f"{number}.jpg").write_bytes(file.getvalue())
        sizes.append(len(file.getvalue()) / 1000)
    for number in range(10):
        test = folder / "test" / str(number)
        test.mkdir(parents=True)
        (test / "0.jpg").write_bytes((folder / "train" / str(number) / f"{number}.jpg").read_bytes())
    return statistics.mean(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="passes of each (default 7)")
    parser.add_argument("--images", type=int, default=1000, help="files, a multiple of 100 (default 1000)")
    parser.add_argument(
        "--memory", type=int, default=0, help="passes of convjax alone, to watch its memory (default 0)"
    )
    parser.add_argument("--names", nargs="+", default=list(PYTHON), choices=list(PYTHON), help="who takes part")
    parser.add_argument("--serve", choices=list(PYTHON), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.folder)
        return
    if "convjax" not in arguments.names:
        parser.error("--names lacks convjax, which the others are compared with")
    if arguments.images <= 0 or arguments.images % 100:
        parser.error(f"--images is {arguments.images}: it must be a multiple of 100, so that all batches are whole")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_CACHE_HOME"] = f"{directory}/cache"
        size = write_images(Path(directory) / "images", arguments.images)
        print(f"{arguments.images} JPEGs of 500 x 375 pixels, {size:.0f} kB; {CORES} cores", flush=True)
        contenders = {name: Contender(name, Path(directory) / "images") for name in arguments.names}
        try:
            compare(contenders, arguments.rounds)
            watch(contenders["convjax"], arguments.memory, arguments.images)
        finally:
            for contender in contenders.values():
                contender.process.kill()


def compare(contenders: dict[str, Contender], rounds: int) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            passed = contender.take_pass()
            if number:  # the first one warms up
                found[name].append(passed)
    print("\n| | images/s | a CPU second | convjax, times as many | least | most |\n|---|---:|---:|---:|---:|---:|")
    for name, passes in found.items():
        clock, cpu = (statistics.median(column) for column in zip(*passes, strict=True))
        ratios = [ours[1] / theirs[1] for ours, theirs in zip(found["convjax"], passes, strict=True)]
        print(
            f"| {name} | {clock:.0f} | {cpu:.0f} | {statistics.median(ratios):.2f} | {min(ratios):.2f} "
            f"| {max(ratios):.2f} |",
            flush=True,
        )


def watch(contender: Contender, passes: int, images: int) -> None:
    """Prints the memory of a pipeline as it goes on."""
    if not passes:
        return
    held = [contender.megabytes()]
    for _ in range(passes):
        contender.take_pass()
        held.append(contender.megabytes())
    # Of the second half: pools grow to their size before.
    half = len(held) // 2
    slope = statistics.linear_regression(range(half, len(held)), held[half:]).slope
    print(
        f"\nmemory: {held[half]:.0f} MB after {half * images:,} images, {held[-1]:.0f} MB after {passes * images:,}; "
        f"growth in between {slope * 10_000 / images:+.1f} MB per 10,000 images"
    )


if __name__ == "__main__":
    main()
