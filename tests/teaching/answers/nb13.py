import statistics

from yolonas_lab.teaching.checks.nb13 import fix_qdq
from yolonas_lab.teaching.lessons.nb13 import WELL_FORMED


def backwards(candidates, wait, clock, rounds, warmup):
    rows = []
    for _ in range(warmup + rounds):
        row = {}
        for name, run in reversed(candidates.items()):
            wait()
            begin = clock()
            run()
            wait()
            row[name] = clock() - begin
        rows.append(row)
    return {name: statistics.median(row[name] for row in rows[warmup:]) * 1e3 for name in candidates}


RIGHT = [
    ("benchmark", backwards),
    ("fix_qdq", lambda text: WELL_FORMED),
    ("fix_qdq", lambda text: fix_qdq(text).replace("s_t", "s_y")),
]
WRONG = [
    ("fix_qdq", lambda text: text, "R1 at conv1"),
    ("fix_qdq", lambda text: text.replace("w1_float", "w1"), "R6 at sum"),
    ("fix_qdq", lambda text: fix_qdq(text).replace("s_y", "s_t", 1), "moved by"),
    ("fix_qdq", (fix_qdq, '"(image, w1, b)" -> "(images, w1_float, b)"'), "conv1 no longer runs in INT8"),
    ("fix_qdq", (fix_qdq, '"(image, w1, b)" -> "(image, w1)"'), "another network"),
    ("fix_qdq", (fix_qdq, '"(image, w1, b)" -> "(image w1, b)"'), "not ONNX text"),
    ("fix_qdq", lambda text: text.split(), "not list"),
    ("benchmark", (backwards, "wait() -> 0"), "only hands the work over"),
    ("benchmark", (backwards, "* 1e3 ->"), "makes milliseconds"),
    ("benchmark", (backwards, "rows[warmup:] -> rows"), "throw them away"),
    ("benchmark", (backwards, "statistics.median -> min"), "one lucky run"),
    ("benchmark", lambda c, wait, clock, rounds, warmup: {}, "expected"),
]
