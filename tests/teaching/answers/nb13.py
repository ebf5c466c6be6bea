import statistics

from yolonas_lab.teaching.checks.nb13 import benchmark, fix_qdq
from yolonas_lab.teaching.lessons.nb13 import WELL_FORMED


def backwards(candidates, wait, clock, rounds, warmup, pause=True, unit=1e3, of=statistics.median):
    wait = wait if pause else lambda: None
    for _ in range(warmup):
        for run in candidates.values():
            run()
            wait()
    rows = []
    for _ in range(rounds):
        row = {}
        for name, run in reversed(candidates.items()):
            begin = clock()
            run()
            wait()
            row[name] = clock() - begin
        rows.append(row)
    return {name: of(row[name] for row in rows) * unit for name in candidates}


def float_conv1(text):
    """The mistakes repaired, conv1's by leaving it in float."""
    return fix_qdq(text).replace("(image, w1, b)", "(images, w1_float, b)")


RIGHT = [
    ("benchmark", backwards),
    ("fix_qdq", lambda text: WELL_FORMED),
    ("fix_qdq", lambda text: fix_qdq(text).replace("s_t", "s_y")),
]
WRONG = [
    ("fix_qdq", lambda text: text, "R1 at conv1"),
    ("fix_qdq", lambda text: text.replace("w1_float", "w1"), "R6 at sum"),
    ("fix_qdq", lambda text: fix_qdq(text).replace("s_y", "s_t", 1), "moved by"),
    ("fix_qdq", float_conv1, "conv1 no longer runs in INT8"),
    ("fix_qdq", lambda text: fix_qdq(text).replace("(image, w1, b)", "(image, w1)"), "another network"),
    ("fix_qdq", lambda text: fix_qdq(text).replace("(image, w1", "(image w1"), "not ONNX text"),
    ("fix_qdq", lambda text: text.split(), "not list"),
    ("benchmark", lambda *a: backwards(*a, pause=False), "only hands the work over"),
    ("benchmark", lambda *a: backwards(*a, unit=1), "makes milliseconds"),
    ("benchmark", lambda c, wait, clock, rounds, warmup: benchmark(c, wait, clock, rounds + warmup, 0), "throw them"),
    ("benchmark", lambda *a: backwards(*a, of=min), "one lucky run"),
    ("benchmark", lambda c, wait, clock, rounds, warmup: {}, "expected"),
]
