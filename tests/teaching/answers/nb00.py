import torch


def sorted_pairs(scores, threshold):
    pairs = sorted(((score, i) for i, score in enumerate(scores.tolist()) if score > threshold), reverse=True)
    return [i for _, i in pairs]


RIGHT = [
    ("speedup", lambda before, after: torch.tensor(before / after, dtype=torch.float64)),
    ("kept_by_threshold", sorted_pairs),
    ("kept_by_threshold", lambda s, t: torch.tensor(sorted_pairs(s, t), dtype=torch.int64).numpy()),
]
WRONG = [
    ("speedup", lambda before, after: max(1.0, before / after), "needs no special case"),
    ("kept_by_threshold", (sorted_pairs, "score > threshold -> score >= threshold"), "use > instead of >="),
    ("kept_by_threshold", (sorted_pairs, ", reverse=True ->"), "descending=True"),
    ("kept_by_threshold", lambda s, t: [i for i, score in enumerate(s) if score > t], "not ordered by score"),
    ("kept_by_threshold", lambda s, t: s[s > t], "where they stand"),
    ("kept_by_threshold", lambda s, t: (s > t).nonzero(), "Its shape is (2, 1) instead of (2,)"),
    ("kept_by_threshold", lambda s, t: s.sort_().indices[: int((s > t).sum())], "raised AttributeError"),
]
