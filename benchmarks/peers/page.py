"""The tables of docs/performance.md, from results."""

from collections.abc import Sequence

from peers.cases import NETWORKS, OURS, SYSTEMS, Device
from peers.epoch import IMAGES, Epoch
from peers.results import STOCK, STOCK_TUNED, Ratio, Result

MARKS: dict[Device, str] = {"cpu": "<!-- tables of make bench -->", "gpu": "<!-- tables of a GPU -->"}
END = "<!-- end of tables -->"
TITLE: dict[Device, str] = {"cpu": "native", "gpu": "convjax"}
"""What the tables call `OURS`."""


def insert(text: str, tables: str, device: Device = "cpu") -> str:
    """Returns a page with other tables of a device between their marks."""
    return between(text, MARKS[device], tables)


def between(text: str, begin: str, tables: str) -> str:
    """Returns a page with something else between a mark and the next `END`."""
    before, rest = text.split(f"{begin}\n")
    return f"{before}{begin}\n{tables}{rest[rest.index(END) :]}"


def tables(every: Sequence[Result], epochs: Sequence[Epoch], device: Device = "cpu") -> str:
    """Returns a table for each task and precision that was measured, one of epochs, and where and when."""
    parts = []
    for task in ("train", "infer"):
        for precision in ("float32", "bfloat16"):
            rows = [r for r in every if (r.task, r.precision) == (task, precision)]
            if rows:
                parts.append(f"\n### {TITLES[task]}, {precision}\n\n{_table(rows, device)}")
    if epochs:
        parts.append(f"\n### An epoch end to end\n\n{_epochs(epochs)}")
    measured = {(r.machine, r.date) for r in every} | {(e.machine, e.date) for e in epochs}
    for machine in sorted({machine for machine, _ in measured}):
        dates = sorted(date for where, date in measured if where == machine)
        parts.append(f"\nMeasured {' to '.join(sorted({dates[0], dates[-1]}))} on {machine}.\n")
    return "".join(parts)


TITLES = {"train": "Training step", "infer": "Inference"}


def _header(device: Device) -> str:
    ours = TITLE[device]
    columns = (
        "network (batch)",
        f"{ours}, images/s",
        "to PyTorch's best",
        f"{ours} / stock",
        *((f"{ours} / stock with our memory settings", "pure / stock") if device == "cpu" else ()),
        f"share of peak: {ours}, PyTorch",
        f"peak memory, GB: {ours}, stock, PyTorch",
        f"first step, s: {ours}, stock, PyTorch",
    )
    return f"| {' | '.join(columns)} |\n|---{'|---:' * (len(columns) - 1)}|\n"


def _table(rows: Sequence[Result], device: Device) -> str:
    lines = [_header(device)]
    for network in (name for name in NETWORKS if any(r.network == name for r in rows)):
        found = {r.system: r for r in rows if r.network == network}
        native, pure, stock = (found.get(name) for name in (OURS[device], "convjax pure", STOCK))
        peers = [r for r in found.values() if SYSTEMS[r.system].torch]
        torch = min(peers, key=lambda r: r.median_s, default=None)
        mode = "" if torch is None else f", {torch.system.removeprefix('torch ')}"
        cells = (
            f"{network} ({next(iter(found.values())).batch_size})",
            "-" if native is None else f"{native.images_per_s:.1f}",
            _ratio(None if native is None else native.ratio_to_torch) + mode,
            _ratio(None if native is None else native.ratio_to_linen),
            *(
                (_medians(found.get(STOCK_TUNED), native), _ratio(None if pure is None else pure.ratio_to_linen))
                if device == "cpu"
                else ()
            ),
            ", ".join(
                "-" if r is None or r.share_of_peak is None else f"{r.share_of_peak:.0%}" for r in (native, torch)
            ),
            ", ".join("-" if r is None else f"{r.peak_memory_bytes / 1e9:.2f}" for r in (native, stock, torch)),
            ", ".join("-" if r is None else f"{r.first_step_s:.0f}" for r in (native, stock, torch)),
        )
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def _epochs(epochs: Sequence[Epoch]) -> str:
    lines = ["| | an epoch, s | images/s | the command besides, s |\n|---|---:|---:|---:|\n"]
    for epoch in epochs:
        spread = f"{epoch.epoch_s:.2f} ({epoch.low:.2f} to {epoch.high:.2f})"
        lines.append(f"| {epoch.system} | {spread} | {IMAGES / epoch.epoch_s:.0f} | {epoch.start_s:.1f} |\n")
    return "".join(lines)


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else str(ratio)


def _medians(of: Result | None, to: Result | None) -> str:
    return "-" if of is None or to is None else f"{of.median_s / to.median_s:.2f}"
