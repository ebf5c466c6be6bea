import pytest

from yolonas_lab.common import machine_name, time_side_by_side


def test_candidates_alternate_and_warmup_is_thrown_away():
    calls = []
    ticks = iter(float(i) for i in range(1000))
    timings = time_side_by_side(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warmup=1, clock=lambda: next(ticks)
    )
    assert "".join(calls) == "abababab"
    assert timings["a"].median_ms == 1000  # this clock advances one second per look


def test_median_and_quartiles_by_hand():
    looks = iter([0.0, 0.010, 0.0, 0.020, 0.0, 0.090])  # three runs of 10, 20 and 90 ms
    timing = time_side_by_side({"a": lambda: None}, rounds=3, warmup=0, clock=lambda: next(looks))["a"]
    assert (timing.low_ms, timing.median_ms, timing.high_ms) == pytest.approx((15, 20, 55))
    assert str(timing) == "a: 20.0 ms (quartiles 15.0 to 55.0)"


def test_the_runs_that_lead_in_are_not_timed():
    calls = []
    ticks = iter(float(i) for i in range(1000))

    def clock():
        calls.append("|")
        return next(ticks)

    ways = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    time_side_by_side(ways, rounds=2, warmup=0, clock=clock, lead_in=2)
    assert "".join(calls) == "aa|a|bb|b|" * 2


def test_nothing_to_time_is_refused():
    with pytest.raises(ValueError, match="0 candidates"):
        time_side_by_side({})
    with pytest.raises(ValueError, match="0 rounds"):
        time_side_by_side({"a": lambda: None}, rounds=0)


def test_the_machine_is_named():
    assert "torch" in machine_name() and "thread" in machine_name()
