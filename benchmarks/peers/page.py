"""The tables of docs/performance.md, from results."""

from collections.abc import Sequence

from peers.cases import NETWORKS, SYSTEMS
from peers.epoch import IMAGES, Epoch
from peers.results import Ratio, Result

BEGIN, END = "<!-- tables of make bench -->", "<!-- end of tables -->"


def insert(text: str, tables: str) -> str:
    """Returns a page with other tables between its marks."""
    before, rest = text.split(f"{BEGIN}\n")
    return f"{before}{BEGIN}\n{tables}{rest[rest.index(END) :]}"


def tables(every: Sequence[Result], epochs: Sequence[Epoch]) -> str:
    """Returns a table for each task and precision that was measured, one of epochs, and where and when."""
    parts = []
    for task in ("train", "infer"):
        for precision in ("float32", "bfloat16"):
            rows = [r for r in every if (r.task, r.precision) == (task, precision)]
            if rows:
                parts.append(f"\n### {TITLES[task]}, {precision}\n\n{_table(rows)}")
    if epochs:
        parts.append(f"\n### An epoch end to end\n\n{_epochs(epochs)}")
    measured = {(r.machine, r.date) for r in every} | {(e.machine, e.date) for e in epochs}
    for machine in sorted({machine for machine, _ in measured}):
        dates = sorted(date for where, date in measured if where == machine)
        parts.append(f"\nMeasured {' to '.join(sorted({dates[0], dates[-1]}))} on {machine}.\n")
    return "".join(parts)


TITLES = {"train": "Training step", "infer": "Inference"}
HEADER = (
    "| network (batch) | native, images/s | to PyTorch's best | native / stock | pure / stock "
    "| share of peak: native, PyTorch "
    "| peak memory, GB: native, stock, PyTorch | first step, s: native, stock, PyTorch |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|\n"
)


def _table(rows: Sequence[Result]) -> str:
    lines = []
    for network in (name for name in NETWORKS if any(r.network == name for r in rows)):
        found = {r.system: r for r in rows if r.network == network}
        native, pure, stock = (found.get(name) for name in ("convjax native", "convjax pure", "linen"))
        peers = [r for r in found.values() if SYSTEMS[r.system].torch]
        torch = min(peers, key=lambda r: r.median_s, default=None)
        mode = "" if torch is None else f", {torch.system.removeprefix('torch ')}"
        cells = (
            f"{network} ({next(iter(found.values())).batch_size})",
            "-" if native is None else f"{native.images_per_s:.1f}",
            _ratio(None if native is None else native.ratio_to_torch) + mode,
            _ratio(None if native is None else native.ratio_to_linen),
            _ratio(None if pure is None else pure.ratio_to_linen),
            ", ".join(
                "-" if r is None or r.share_of_peak is None else f"{r.share_of_peak:.0%}" for r in (native, torch)
            ),
            ", ".join("-" if r is None else f"{r.peak_memory_bytes / 1e9:.2f}" for r in (native, stock, torch)),
            ", ".join("-" if r is None else f"{r.first_step_s:.0f}" for r in (native, stock, torch)),
        )
        lines.append(f"| {' | '.join(cells)} |\n")
    return HEADER + "".join(lines)


def _epochs(epochs: Sequence[Epoch]) -> str:
    lines = ["| | an epoch, s | images/s | the command besides, s |\n|---|---:|---:|---:|\n"]
    for epoch in epochs:
        spread = f"{epoch.epoch_s:.2f} ({epoch.low:.2f} to {epoch.high:.2f})"
        lines.append(f"| {epoch.system} | {spread} | {IMAGES / epoch.epoch_s:.0f} | {epoch.start_s:.1f} |\n")
    return "".join(lines)


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else str(ratio)
