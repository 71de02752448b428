"""What one epoch of a run asks of the device and waits for, counted from XLA's own trace."""

import jax
import pytest

from convjax.data.order import Draws
from convjax.models import MLP
from convjax.train import loop
from convjax.train.config import Config, DataConfig, TrainConfig
from convjax.train.run import Run

# 719 examples to train on and 718 to validate on: an evaluation takes 12 batches.
CONFIG = Config(
    model=MLP(hidden=(16,)),
    data=DataConfig("digits", validation=0.5),
    train=TrainConfig(length="30 steps", batch_size=64, evaluate_every="10 steps", log_every=5),
)
EVENTS = {
    "CommonPjRtLoadedExecutable::ExecuteHelperOnSingleDevice": "E",
    "np.asarray(jax.Array)": "R",
    "DevicePutWithSharding": "P",
    "DevicePut": "P",
    "CpuCompiler::CompileCpuExecutable": "C",
}
"""What XLA and JAX call it when a program is executed, an array is read by the host, put on the device, a program
compiled."""


@pytest.fixture(scope="module")
def epoch(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The second epoch of a run, with its checkpoint and evaluation: a letter for each event, in order."""
    directory, ids = tmp_path_factory.mktemp("loop"), Draws.ids
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0

    def watched(self: Draws, number: int) -> object:
        if number == 10:
            jax.profiler.start_trace(str(directory / "trace"), profiler_options=options)
        if number == 20:
            jax.profiler.stop_trace()
        return ids(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Draws, "ids", watched)
        loop.train(CONFIG, Run(directory / "run"))
    (file,) = directory.rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(file)).planes
    threads = [[(event.start_ns, event.name) for event in line.events] for plane in planes for line in plane.lines]
    (loops,) = (thread for thread in threads if any(name == "PjitFunction(advance)" for _, name in thread))
    # The checkpoint is written by threads of its own; programs are compiled by others, wherever that was asked for.
    compiled = [event for thread in threads if thread is not loops for event in thread if EVENTS.get(event[1]) == "C"]
    return "".join(EVENTS.get(name, "") for _, name in sorted([*loops, *compiled]))


def test_an_epoch_compiles_nothing_and_a_step_is_one_transfer_one_dispatch_and_one_late_look(epoch: str) -> None:
    metrics = 6 * "R"  # loss, accuracy, gradient norm, learning rate, broken, skipped
    # Only ids go to the device; what a step ends with is read once the next one has been dispatched.
    first, between = "PE", 9 * f"PE{metrics}"
    # The step's number, and one program that copies the state, which the next step donates.
    checkpoint = f"{metrics}RE"
    # The four scores of all batches are read together at the end.
    evaluation = 12 * "PE" + 4 * 12 * "R"
    assert epoch == first + between + checkpoint + evaluation
