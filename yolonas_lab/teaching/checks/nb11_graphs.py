"""Small graphs for the exercise insert_qdq of notebook 11, as nodes (output, operation, inputs)."""

Node = tuple[str, str, list[str]]  # the tensor it writes, its operation, the tensors it reads

CHAIN: list[Node] = [
    ("c1", "conv", ["image"]),
    ("a", "relu", ["c1"]),
    ("c2", "conv", ["a"]),
    ("b", "relu", ["c2"]),
    ("boxes", "predict", ["b"]),
    ("p", "softmax", ["boxes"]),
]
RESIDUAL: list[Node] = [
    ("c1", "conv", ["image"]),
    ("a", "relu", ["c1"]),
    ("c2", "conv", ["a"]),
    ("b", "relu", ["c2"]),
    ("skip", "mul", ["a"]),
    ("sum", "add", ["skip", "b"]),
    ("c3", "conv", ["sum"]),
    ("d", "relu", ["c3"]),
    ("scores", "predict", ["d"]),
]
CONCAT: list[Node] = [
    ("c1", "conv", ["image"]),
    ("a", "relu", ["c1"]),
    ("c2", "conv", ["a"]),
    ("b", "relu", ["c2"]),
    ("both", "concat", ["a", "b"]),
    ("c3", "conv", ["both"]),
    ("d", "relu", ["c3"]),
    ("scores", "predict", ["d"]),
]
POOLS: list[Node] = [
    ("c1", "conv", ["image"]),
    ("a", "relu", ["c1"]),
    ("p1", "maxpool", ["a"]),
    ("p2", "maxpool", ["p1"]),
    ("all", "concat", ["a", "p1", "p2"]),
    ("c2", "conv", ["all"]),
    ("b", "relu", ["c2"]),
    ("scores", "predict", ["b"]),
]
TWO_CONCATS: list[Node] = [
    ("c1", "conv", ["image"]),
    ("a", "relu", ["c1"]),
    ("c2", "conv", ["a"]),
    ("b", "relu", ["c2"]),
    ("ab", "concat", ["a", "b"]),
    ("c3", "conv", ["ab"]),
    ("d", "relu", ["c3"]),
    ("bd", "concat", ["d", "b"]),
    ("c4", "conv", ["bd"]),
    ("e", "relu", ["c4"]),
    ("boxes", "predict", ["e"]),
    ("scores", "predict", ["e"]),
    ("out", "concat", ["boxes", "scores"]),
]
NESTED: list[Node] = [
    ("c1", "conv", ["image"]),
    ("a", "relu", ["c1"]),
    ("c2", "conv", ["a"]),
    ("b", "relu", ["c2"]),
    ("skip", "mul", ["a"]),
    ("sum", "add", ["skip", "b"]),
    ("pooled", "maxpool", ["sum"]),
    ("c3", "conv", ["a"]),
    ("d", "relu", ["c3"]),
    ("both", "concat", ["pooled", "d"]),
    ("c4", "conv", ["both"]),
    ("e", "relu", ["c4"]),
    ("scores", "predict", ["e"]),
]
