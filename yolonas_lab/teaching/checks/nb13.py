"""Exercises of notebook 13 (TensorRT INT8): fix_qdq, benchmark."""

import statistics
from collections.abc import Callable

import numpy as np

from yolonas_lab.deployment.qdq_rules import check_qdq, quantized_layers
from yolonas_lab.teaching.exercises import Case, Exercise, Exercises
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


def _not_repaired(fix: Callable[[str], object]) -> str:
    """What is still wrong with the repaired graph, or ""."""
    text = fix(faulty_text())
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


def _on_simulated_gpu(fn: Callable) -> Callable[[str], dict[str, float]]:
    """The benchmark as a function of the words that name a machine."""

    def on_machine(machine: str) -> dict[str, float]:
        make, rounds, warmup = MACHINES[machine]
        gpu = make()
        return fn(gpu.candidates(), gpu.wait, gpu.clock, rounds, warmup)

    return on_machine


EXERCISES = Exercises(
    Exercise(
        fix_qdq,
        hints=(
            "Print check_qdq(model_of(broken)): each finding names a node and a rule. There is one finding per "
            "mistake.",
            "conv1 multiplies by w1_float although w1 is made one line above; the sum reads r1, which is x before it "
            "is quantized; and t has the scale s_t where y has s_y.",
            'text.replace("w1_float", "w1") mends the first; the other two take one replace each.',
        ),
        judge=_not_repaired,
        passed="no rule is broken, and all three hidden convolutions may run in INT8",
    ),
    Exercise(
        benchmark,
        hints=(
            "What has the GPU done when run() comes back? And what is it still doing when you read the clock first?",
            "Loop over the rounds outside and over the candidates inside; collect one list of times per name, and "
            "throw the first `warmup` rounds away.",
            "Per run: wait(), start = clock(), run(), wait(), and then 1000 * (clock() - start). At the end "
            "statistics.median of each list.",
        ),
        cases=[Case((machine,), machine) for machine in MACHINES],
        probe=_on_simulated_gpu,
        tolerance=0.03,
        mistakes={
            "wait() -> None": "run() only hands the work over: wait() before you read the clock again.",
            "1000 * ->": "clock() gives seconds: times 1000 makes milliseconds.",
            "i >= warmup -> True": "the warm-up rounds are in the result: throw them away.",
            (
                "wait()  # -> wait() if i > warmup else None  #",
                "run()\n            wait() -> run()\n            wait() if i >= warmup else None",
            ): "work of the warm-up is still running when you start the clock: wait() first.",
            "statistics.median -> statistics.mean": "a mean is moved by every interruption: take the median.",
            "statistics.median -> min": "the smallest time is one lucky run: take the median.",
            (
                "for i in range(warmup + rounds) -> for name, run in candidates.items()",
                "for name, run in candidates.items():  # -> for i in range(warmup + rounds):  #",
            ): "one engine after the other: the later ones meet a warmer GPU. Run them in turn.",
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_fix_qdq, check_benchmark = EXERCISES["fix_qdq"].check, EXERCISES["benchmark"].check
