"""Compares every named network with the one of PyTorch's libraries: the same weights in, the same numbers out.

    python tests/parity/certify.py [NAME ...] [--record] [--write docs/models.md]

needs torch, torchvision and timm beside convjax (`make certify` sees to that), and prints a table of the largest
relative differences (see `Row`). PyTorch computes in float64, so that only convjax rounds; beside each stands how far
PyTorch itself is off in float32, by the same measure. With --record, the certificates are written that
tests/models/test_certificates.py replays without PyTorch; without, those there are must agree with PyTorch of now.
"""

import argparse
import gc
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import certificates
import drawn
import jax
import numpy as np
import torch
import torchvision
from certificates import Certificate, Norm, Value, apart, floors, sketch
from kinks import MARGIN, Kinks
from references import reference, stages

from convjax.interop.layout import Array
from convjax.interop.torch_names import from_torch, to_torch
from convjax.models import MODELS

KINDS = ("logits", "features", "loss", "gradients", "statistics")
BEGIN, END = "<!-- table of make certify -->", "<!-- end of table -->"
AGREE = 1e-6
"""Relative difference between a certificate and what PyTorch says now in float64."""


class Row(NamedTuple):
    """Of one network: by kind, the largest relative difference in it, ours and PyTorch's own in float32.

    Of logits the largest difference relative to the largest logit; else the length of the difference of two arrays,
    relative to the expected one's (of gradients: see `floors`), of the array in which it is largest.
    """

    name: str
    source: str
    ours: dict[str, float]
    theirs: dict[str, float]

    def __str__(self) -> str:
        cells = (f"{self.ours[kind]:.0e} / {self.theirs[kind]:.0e}" if kind in self.ours else "-" for kind in KINDS)
        return f"| {self.name} | {self.source} | {' | '.join(cells)} |"


HEADER = f"| network | reference | {' | '.join(KINDS)} |\n|---|---|{'---|' * len(KINDS)}"


@contextmanager
def hooks(found: list[Any]) -> Iterator[None]:
    """Takes hooks off again."""
    try:
        yield
    finally:
        for hook in found:
            hook.remove()


def load(net: torch.nn.Module, state_dict: Mapping[str, Array], dtype: torch.dtype) -> None:
    found = net.load_state_dict({key: torch.from_numpy(value) for key, value in state_dict.items()}, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in found.missing_keys), found
    assert not found.unexpected_keys, found
    net.to(dtype).zero_grad(set_to_none=True)


def batch_norms(net: torch.nn.Module) -> dict[str, torch.nn.BatchNorm2d]:
    return {name: m for name, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)}


def levels(name: str, net: torch.nn.Module) -> dict[str, float]:
    """Returns the mean square of what each batch norm gets in evaluation, once those before it know theirs."""
    found: dict[str, float] = {}

    def tell(key: str) -> Any:
        def hook(module: torch.nn.Module, inputs: Any) -> None:
            found[key] = float(np.float32(inputs[0].square().mean().item()))
            module.running_mean *= found[key] ** 0.5
            module.running_var *= found[key]

        return hook

    load(net, drawn.weights(name, {}), torch.float64)
    with hooks([m.register_forward_pre_hook(tell(key)) for key, m in batch_norms(net).items()]), torch.no_grad():
        net.eval()(torch.from_numpy(drawn.evaluated_images(name)).double())
    return found


def evaluate(name: str, net: torch.nn.Module, batch: Array, dtype: torch.dtype) -> dict[str, Array]:
    """Returns the library's `logits` and `features/...`."""
    found: dict[str, Array] = {}

    def keep(key: str) -> Any:
        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            found[f"features/{key}"] = output.numpy().copy()  # the next module may work in place

        return hook

    kept = [net.get_submodule(m).register_forward_hook(keep(key)) for key, m in stages(MODELS[name].module).items()]
    with hooks(kept), torch.no_grad():
        return {"logits": net.eval()(torch.from_numpy(batch).to(dtype)).numpy()} | found


def train(net: torch.nn.Module, state_dict: Mapping[str, Array], batch: Array, dtype: torch.dtype) -> dict[str, Array]:
    """Returns the library's `loss`, `gradients/...`, and `statistics/...` of the batch, of one step without dropout."""
    load(net, state_dict, dtype)
    logits = net.train()(torch.from_numpy(batch).to(dtype))
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(batch)))
    loss.backward()
    found = {"loss": np.asarray(loss.item())}
    found |= {f"gradients/{key}": p.grad.numpy().copy() for key, p in net.named_parameters() if p.grad is not None}
    after = net.state_dict()
    for key, norm in batch_norms(net).items():
        for leaf in (f"{key}.running_mean", f"{key}.running_var"):
            batchs = certificates.of_batch(state_dict[leaf], after[leaf].numpy(), norm.momentum)
            found[f"statistics/{leaf}"] = batchs
    return found


def counts(net: torch.nn.Module, batch: Array) -> dict[str, int]:
    """Returns how many values of a channel each batch norm gets in training."""
    found: dict[str, int] = {}

    def count(key: str) -> Any:
        return lambda module, inputs: found.update({key: inputs[0].numel() // inputs[0].shape[1]})

    with hooks([m.register_forward_pre_hook(count(key)) for key, m in batch_norms(net).items()]), torch.no_grad():
        net.train()(torch.from_numpy(batch).double())
    return found


def quiet_seed(name: str, net: torch.nn.Module) -> int:
    """Returns the first seed of training images none of whose values is near to where a gradient jumps."""
    for seed in range(1000):
        with Kinks() as kinks, torch.no_grad():
            net.train()(torch.from_numpy(drawn.trained_images(name, seed)).double())
        if kinks.margin > MARGIN:
            return seed
    raise RuntimeError(f"no images for {name} keep clear of all kinks")


def certify(name: str) -> tuple[Certificate, Row]:
    """Computes a network's certificate, and compares."""
    net, source = reference(name)
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout | torchvision.ops.StochasticDepth):
            module.p = 0.0
    found = levels(name, net)
    state_dict, batch = drawn.weights(name, found), drawn.evaluated_images(name)
    back = to_torch(name, from_torch(name, state_dict))
    assert back.keys() == state_dict.keys()
    for key, value in state_dict.items():
        np.testing.assert_array_equal(back[key], value)
    load(net, state_dict, torch.float32)
    single = evaluate(name, net, batch, torch.float32)
    load(net, state_dict, torch.float64)
    double = evaluate(name, net, batch, torch.float64)
    ours = certificates.evaluate(name, state_dict, batch, double)
    logits = double["logits"]
    assert np.abs(logits[0] - logits[1]).max() > 1e-3 * np.abs(logits).max(), f"{name}: the images do not matter"
    digests = [drawn.digest(state_dict, batch)]

    state_dict = drawn.weights(name)
    load(net, state_dict, torch.float64)
    seed = quiet_seed(name, net)
    batch = drawn.trained_images(name, seed)
    digests.append(drawn.digest(state_dict, batch))
    values = counts(net, batch)
    norms = {key: Norm(found[key], values[key], float(m.momentum)) for key, m in batch_norms(net).items()}
    single |= train(net, state_dict, batch, torch.float32)
    double |= train(net, state_dict, batch, torch.float64)
    ours |= certificates.train(name, state_dict, batch, norms)

    lengths = {key: float(np.linalg.norm(value)) for key, value in double.items()}
    floor = floors(lengths)
    rounding = {key: apart(single[key], value, floor[key]) for key, value in double.items()}
    differences = {key: apart(ours[key], value, floor[key]) for key, value in double.items()}
    for kept, computed in ((rounding, single), (differences, ours)):
        kept["logits"] = float(np.abs(computed["logits"] - logits).max() / np.abs(logits).max())
    sketches = {key: Value(lengths[key], sketch(key, value), rounding[key]) for key, value in double.items()}
    certificate = Certificate(source, (digests[0], digests[1]), seed, norms, logits, sketches)
    return certificate, Row(name, source, largest(differences), largest(rounding))


def largest(differences: Mapping[str, float]) -> dict[str, float]:
    """Returns the largest difference of each kind."""
    found: dict[str, float] = {}
    for key, difference in differences.items():
        kind = key.split("/")[0]
        found[kind] = max(found.get(kind, 0.0), difference)
    return found


def disagreement(recorded: Certificate, now: Certificate) -> str:
    """Says in what a certificate differs from what the library computes now; nothing where it does not."""
    if recorded.digests != now.digests or recorded.values.keys() != now.values.keys():
        return "weights or names"
    floor = floors({key: value.norm for key, value in now.values.items()})
    off = {key: apart(recorded.values[key].sketch, value.sketch, floor[key]) for key, value in now.values.items()}
    return ", ".join(f"{key} by {d:.0e}" for key, d in off.items() if not d <= AGREE)


def write(file: Path, rows: Mapping[str, Row]) -> None:
    """Puts the rows into a file's table; rows of other networks stay."""
    text = file.read_text()
    before, table, after = re.split(f"(?<={BEGIN}\n)|(?={END})", text)
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()[2:]}
    lines |= {name: str(row) for name, row in rows.items()}
    file.write_text("\n".join((f"{before}{HEADER}", *(lines[name] for name in MODELS if name in lines), after)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*MODELS, []], metavar="NAME")
    parser.add_argument("--record", action="store_true", help="write the certificates")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the rows into the table of a Markdown file")
    options = parser.parse_args()
    failed = []
    print(HEADER, flush=True)
    for name in options.names or MODELS:
        try:
            certificate, row = certify(name)
        except NotImplementedError as reason:
            print(f"| {name} | {reason} |", flush=True)
            continue
        print(row, flush=True)
        if options.record:
            certificate.write(name)
        elif not certificates.exists(name):
            failed.append(f"{name}: no certificate is recorded; --record writes it")
        elif differs := disagreement(Certificate.read(name), certificate):
            failed.append(f"{name}: the certificate differs from what PyTorch computes now in {differs}")
        if options.write:
            write(options.write, {name: row})
        jax.clear_caches()
        gc.collect()
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
