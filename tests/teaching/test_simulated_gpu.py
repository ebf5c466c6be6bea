import pytest

from yolonas_lab.teaching.lessons.nb13 import LAUNCH_MS, SimulatedGpu


def test_a_launch_comes_back_before_the_work_is_done():
    gpu = SimulatedGpu({"a": 20.0})
    gpu.candidates()["a"]()
    assert gpu.clock() == pytest.approx(LAUNCH_MS / 1e3)
    gpu.wait()
    assert gpu.clock() == pytest.approx((LAUNCH_MS + 20) / 1e3)
    gpu.wait()  # nothing is left to wait for
    assert gpu.clock() == pytest.approx((LAUNCH_MS + 20) / 1e3)


def test_launches_queue_up_behind_each_other():
    gpu = SimulatedGpu({"a": 20.0, "b": 30.0})
    for run in gpu.candidates().values():
        run()
    gpu.wait()
    assert gpu.now == pytest.approx(LAUNCH_MS + 20 + 30)


def durations(gpu, name, count):
    run, found = gpu.candidates()[name], []
    for _ in range(count):
        start = gpu.now
        run()
        gpu.wait()
        found.append(round(gpu.now - start - LAUNCH_MS, 6))
    return found


def test_slow_runs_warming_and_interruptions():
    assert durations(SimulatedGpu({"a": 10.0}, slow_runs=2, slow_ms=5.0), "a", 3) == [15, 15, 10]
    assert durations(SimulatedGpu({"a": 10.0}, warming=0.1), "a", 3) == [10, 11, 12]
    assert durations(SimulatedGpu({"a": 10.0}, interrupted=2), "a", 4) == [10, 310, 10, 310]
