"""The profiler's trace: made by hand, and that of a real program."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from convjax.errors import RunError
from convjax.profile import trace


def event(name: str, start_us: int, duration_us: int, **stats: str | int) -> str:
    numbers = {"hlo_op": 1, "_p": 2, "_c": 3}
    written = "".join(
        f"stats {{ metadata_id: {numbers[key]} {'str_value' if isinstance(value, str) else 'uint64_value'}: "
        f"{repr(value).replace(chr(39), chr(34))} }} "
        for key, value in stats.items()
    )
    key = EVENTS.setdefault(name, len(EVENTS) + 1)
    return f"events {{ metadata_id: {key} offset_ps: {start_us}000000 duration_ps: {duration_us}000000 {written}}}"


EVENTS: dict[str, int] = {}


def plane(name: str, *lines: list[str]) -> str:
    body = "".join(f"lines {{ id: {i} {' '.join(events)} }} " for i, events in enumerate(lines))
    names = "".join(f'event_metadata {{ key: {k} value {{ id: {k} name: "{n}" }} }} ' for n, k in EVENTS.items())
    stats = "".join(
        f'stat_metadata {{ key: {k} value {{ id: {k} name: "{n}" }} }} '
        for k, n in enumerate(("hlo_op", "_p", "_c"), start=1)
    )
    return f'planes {{ name: "{name}" {body}{names}{stats}}}'


def busy(*planes: str) -> dict[str, float]:
    found = trace.busy(jax.profiler.ProfileData.from_text_proto("\n".join(planes)), {"a", "b", "c"})
    return {name: round(1e6 * seconds, 6) for name, seconds in found.items()}


def test_time_in_which_several_run_is_shared() -> None:
    # a from 0 to 10, b from 4 to 6 and again from 20 to 21: together 11, of which two are shared.
    found = busy(
        plane(
            "/host:CPU",
            [event("a", 0, 10, hlo_op="a"), event("python", 0, 99), event("b", 20, 1, hlo_op="b")],
            [event("b", 4, 2, hlo_op="b"), event("other", 0, 50, hlo_op="other")],
        )
    )
    assert found == {"a": 9, "b": 2}


def test_what_is_started_and_not_waited_for_runs_until_its_end() -> None:
    # a is started at 0, and ends at 8 on another thread; c runs from 6 to 7.
    found = busy(
        plane(
            "/host:CPU",
            [event("a", 0, 1, hlo_op="a", _p=5), event("c", 6, 1, hlo_op="c", _p=6)],
            [event("end: a", 8, 1, _c=5), event("end: c", 7, 0, _c=6)],
        )
    )
    assert found == {"a": 7.5, "c": 0.5}


def test_of_accelerators_the_first_is_looked_at() -> None:
    kernel = event("sm90_gemm", 0, 3, hlo_op="a")
    found = busy(
        plane("/host:CPU", [event("a", 0, 100, hlo_op="a")]),
        plane("/device:CUSTOM:Megascale Trace", [event("a", 0, 50, hlo_op="a")]),
        plane("/device:GPU:1", [event("sm90_gemm", 0, 9, hlo_op="a")]),
        plane("/device:GPU:0", [kernel]),
    )
    assert found == {"a": 3}


PROGRAM = """
HloModule jit_f, is_scheduled=true

%fused_computation (param_0: f32[8]) -> f32[8] {
  %param_0 = f32[8]{0} parameter(0)
  %constant.1 = f32[] constant(2)
  %mul.1 = f32[8]{0} multiply(%param_0, %param_0), metadata={op_name="jit(f)/stem/mul" stack_frame_id=1}
  ROOT %add.1 = f32[8]{0} add(%mul.1, %param_0), metadata={op_name="jit(f)/head/add"}
}

ENTRY %main.9 (x.1: f32[8]) -> (f32[8], /*index=1*/f32[8]) {
  %x.1 = f32[8]{0} parameter(0)
  %fusion.3 = f32[8]{0} fusion(%x.1), kind=kLoop, calls=%fused_computation
  %call.2 = f32[8]{0} call(%x.1), to_apply=%fused_computation, metadata={op_name="jit(f)/call"}
  ROOT %tuple.2 = (f32[8]{0}, /*index=1*/f32[8]{0}) tuple(%fusion.3, %call.2)
}
"""


def test_scopes_are_read_off_a_program() -> None:
    found = trace.scopes(PROGRAM)
    assert found["mul.1"] == "jit(f)/stem/mul"
    assert found["fusion.3"] == "jit(f)/stem/mul"  # it has none itself: that of the first inside
    assert found["x.1"] == ""
    assert "call.2" not in found  # what it runs is seen itself


def test_a_real_trace_knows_the_operations_of_a_real_program(tmp_path: Path) -> None:
    @jax.jit
    def f(x: jax.Array) -> jax.Array:
        with jax.named_scope("products"):
            return x @ x @ x

    x = jnp.ones((300, 300))
    scopes = trace.scopes(str(f.lower(x).compile().as_text()))
    jax.block_until_ready(f(x))
    with jax.profiler.trace(tmp_path):
        jax.block_until_ready(f(x))
    found = trace.busy(trace.read(tmp_path), set(scopes))
    assert sum("products" in scopes[name] for name in found) >= 2
    assert all(seconds > 0 for seconds in found.values())


def test_a_directory_without_a_trace_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no trace"):
        trace.read(tmp_path)
