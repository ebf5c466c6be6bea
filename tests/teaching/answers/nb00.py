import torch


def with_plain_lists(scores, threshold):
    pairs = sorted(((score, i) for i, score in enumerate(scores.tolist()) if score > threshold), reverse=True)
    return [i for _, i in pairs]


RIGHT = [
    ("speedup", lambda before, after: torch.tensor(before / after, dtype=torch.float64)),
    ("speedup", lambda before, after: 1 / (after / before)),  # as the last hint says, written otherwise
    ("kept_by_threshold", with_plain_lists),
    ("kept_by_threshold", lambda s, t: torch.tensor(with_plain_lists(s, t), dtype=torch.int64).numpy()),
]
WRONG = [
    ("speedup", lambda before, after: max(1.0, before / after), "needs no special case"),
    (
        "kept_by_threshold",
        lambda s, t: [i for i in s.argsort(descending=True).tolist() if s[i] >= t],
        "use > instead of >=",
    ),
    ("kept_by_threshold", lambda s, t: [i for i, score in enumerate(s) if score > t], "not ordered by score"),
    ("kept_by_threshold", lambda s, t: [i for i in s.argsort().tolist() if s[i] > t], "descending=True"),
    ("kept_by_threshold", lambda s, t: s[s > t], "where they stand"),
    ("kept_by_threshold", lambda s, t: (s > t).nonzero(), "Its shape is (2, 1) instead of (2,)"),
    (
        "kept_by_threshold",
        lambda s, t: s.sort_(descending=True).indices[: int((s > t).sum())],
        "raised AttributeError",
    ),
]
