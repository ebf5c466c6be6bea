"""Exercises of notebook 13 (TensorRT INT8): fix_qdq, benchmark."""

import statistics
from collections.abc import Callable

import numpy as np

from yolonas_lab.deployment.qdq_rules import check_qdq, quantized_layers
from yolonas_lab.teaching.exercises import Case, CheckFailed, Mistake, check_cases, show_hint, show_solution
from yolonas_lab.teaching.lessons.nb13 import HIDDEN, WELL_FORMED, SimulatedGpu, faulty_text, model_of


def fix_qdq(text: str) -> str:
    text = text.replace("(image, w1_float, b)", "(image, w1, b)")  # the weight that is stored as integers
    text = text.replace("Add(r1, y)", "Add(x, y)")  # x is r1 after Q and DQ
    return text.replace("s_t", "s_y")  # in Q and in DQ


def benchmark(candidates: dict[str, Callable], wait: Callable, clock: Callable, rounds: int, warmup: int) -> dict:
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(warmup + rounds):
        for name, run in candidates.items():  # in turn: whatever drifts, drifts for all
            wait()  # nothing of earlier runs is left
            start = clock()
            run()
            wait()
            if i >= warmup:
                times[name].append(1000 * (clock() - start))
    return {name: statistics.median(values) for name, values in times.items()}


SOLUTIONS = {"fix_qdq": fix_qdq, "benchmark": benchmark}
HINTS = {
    "fix_qdq": (
        "Print check_qdq(model_of(broken)): each finding names a node and a rule. There is one finding per mistake.",
        "conv1 multiplies by w1_float although w1 is made one line above; the sum reads r1, which is x before it is "
        "quantized; and t has the scale s_t where y has s_y.",
        'text.replace("w1_float", "w1") mends the first; the other two take one replace each.',
    ),
    "benchmark": (
        "What has the GPU done when run() comes back? And what is it still doing when you read the clock first?",
        "Loop over the rounds outside and over the candidates inside; collect one list of times per name, and throw "
        "the first `warmup` rounds away.",
        "Per run: wait(), start = clock(), run(), wait(), and then 1000 * (clock() - start). At the end "
        "statistics.median of each list.",
    ),
}


def hint(name: str, level: int = 1) -> None:
    """Print a hint for an exercise of this notebook; level 1 is the gentlest."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of an exercise of this notebook."""
    show_solution(SOLUTIONS, name)


def check_fix_qdq(fn: Callable[[str], str]) -> None:
    """Check fix_qdq(text) -> text of a graph that breaks no rule, and still computes the same in INT8."""
    try:
        repaired = fn(faulty_text())
    except NotImplementedError as error:
        raise CheckFailed("fix_qdq is not written yet: replace `raise NotImplementedError()` by your code.") from error
    if problem := _problem_of(repaired):
        raise CheckFailed(f"fix_qdq: {problem}")
    print("✓ fix_qdq: no rule is broken, and all three hidden convolutions may run in INT8")


def _problem_of(text: object) -> str:
    """What is still wrong with the repaired graph, or ""."""
    if not isinstance(text, str):
        return f"return the whole text of the graph, not {type(text).__name__}."
    try:
        model = model_of(text)
    except ValueError as error:
        return str(error)
    if violations := check_qdq(model):
        return f"a rule is still broken (one of {len(violations)}): {violations[0]}"
    in_int8 = quantized_layers(model)
    if lost := [name for name in HIDDEN if not in_int8.get(name)]:
        return f"no rule is broken, but {', '.join(lost)} no longer runs in INT8: repair Q/DQ, don't remove it."
    scores, expected = _scores(text), _scores(WELL_FORMED)
    if scores.shape != expected.shape:
        return f"no rule is broken, but the scores have the shape {scores.shape} instead of {expected.shape}."
    apart = float(np.abs(scores - expected).mean())
    if apart > 0.03:
        return f"no rule is broken, but the scores moved by {apart:.2f} on average: it is another network now."
    return ""


def _scores(text: str) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # each node as written
    session = onnxruntime.InferenceSession(model_of(text).SerializeToString(), options)
    images = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    (scores,) = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(scores)


# words about a simulated machine: the machine, rounds, warm-up rounds
MACHINES: dict[str, tuple[Callable[[], SimulatedGpu], int, int]] = {
    "one engine of 20 ms": (lambda: SimulatedGpu({"a": 20.0}), 5, 0),
    "two engines, the second half as fast": (lambda: SimulatedGpu({"a": 10.0, "b": 20.0}), 5, 1),
    "the first two runs are slow": (lambda: SimulatedGpu({"a": 10.0}, slow_runs=2), 3, 2),
    "the first run is very slow, and one round": (lambda: SimulatedGpu({"a": 10.0}, slow_runs=1), 1, 1),
    "every eleventh run is interrupted": (lambda: SimulatedGpu({"a": 10.0, "b": 30.0}, interrupted=11), 20, 1),
    "a GPU that gets warm, and two equal engines": (lambda: SimulatedGpu({"a": 10.0, "b": 10.0}, warming=0.02), 21, 1),
}


def check_benchmark(fn: Callable) -> None:
    """Check benchmark(candidates, wait, clock, rounds, warmup) -> median ms by name, on simulated GPUs."""
    solve = on_simulated_gpu(benchmark)
    cases = [Case((machine,), solve(machine), machine) for machine in MACHINES]
    says = {
        "run() only hands the work over: wait() before you read the clock again.": _without_wait,
        "clock() gives seconds: times 1000 makes milliseconds.": _in_seconds,
        "the warm-up rounds are in the result: throw them away.": _with_warmup,
        "work of the warm-up is still running when you start the clock: wait() first.": _late_start,
        "a mean is moved by every interruption: take the median.": _mean,
        "the smallest time is one lucky run: take the median.": _fastest,
        "one engine after the other: the later ones meet a warmer GPU. Run them in turn.": _one_after_the_other,
    }
    mistakes = [Mistake(on_simulated_gpu(wrong), words) for words, wrong in says.items()]
    check_cases("benchmark", on_simulated_gpu(fn), cases, mistakes, tolerance=0.03)


def on_simulated_gpu(fn: Callable) -> Callable[[str], dict[str, float]]:
    """The benchmark as a function of the words that name a machine."""

    def on_machine(machine: str) -> dict[str, float]:
        make, rounds, warmup = MACHINES[machine]
        gpu = make()
        return fn(gpu.candidates(), gpu.wait, gpu.clock, rounds, warmup)

    return on_machine


def _without_wait(candidates, wait, clock, rounds, warmup):
    return benchmark(candidates, lambda: None, clock, rounds, warmup)


def _in_seconds(candidates, wait, clock, rounds, warmup):
    return {name: ms / 1000 for name, ms in benchmark(candidates, wait, clock, rounds, warmup).items()}


def _with_warmup(candidates, wait, clock, rounds, warmup):
    return benchmark(candidates, wait, clock, rounds + warmup, 0)


def _late_start(candidates, wait, clock, rounds, warmup):
    for _ in range(warmup):
        for run in candidates.values():
            run()
    first = iter([True])

    def wait_but_once():
        return None if next(first, False) else wait()

    return benchmark(candidates, wait_but_once, clock, rounds, 0)


def _statistic(of: Callable, candidates, wait, clock, rounds, warmup):
    """As benchmark, with another number than the median; engines in turn."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(warmup + rounds):
        for name, run in candidates.items():
            (ms,) = benchmark({name: run}, wait, clock, 1, 0).values()
            times[name] += [ms] * (i >= warmup)
    return {name: of(values) for name, values in times.items()}


def _mean(*arguments):
    return _statistic(statistics.mean, *arguments)


def _fastest(*arguments):
    return _statistic(min, *arguments)


def _one_after_the_other(candidates, wait, clock, rounds, warmup):
    return {name: benchmark({name: run}, wait, clock, rounds, warmup)[name] for name, run in candidates.items()}
