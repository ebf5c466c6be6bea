"""Is a random network of a space what it should be? What can be said of a function whose answers are random.

Part of the checks of notebook 09. Frequencies may stray by six standard deviations: a right answer is never refused.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from yolonas_lab.teaching.checks.check import CheckFailed

DECISIONS = {"width": (16, 24, 32), "blocks": (1, 2), "concat": (False, True), "block": ("plain", "repvgg", "qarepvgg")}
DRAWS = 1200


def check_draws(fn: Callable[..., Any]) -> None:
    """Raise CheckFailed saying what is wrong with sample(decisions, rng), or print that it is right."""
    _inside(DECISIONS, _call(fn, DECISIONS, np.random.default_rng(0)))
    only = {"stem": (48,)}
    _inside(only, _call(fn, only, np.random.default_rng(0)))
    one, again = (_draws(fn, 20) for _ in range(2))
    if one != again:
        raise CheckFailed(
            "sample: two generators with the same seed gave different networks.\n  Likely: something else than rng was "
            "asked for random numbers, such as np.random or random."
        )
    draws = _draws(fn, DRAWS)
    if all(draw == draws[0] for draw in draws):
        raise CheckFailed(
            f"sample: {DRAWS} calls with one generator gave the same network each time, {draws[0]}.\n  Likely: a new "
            "generator is made inside, or nothing is drawn: use the rng that is given."
        )
    for name, options in DECISIONS.items():
        _even(f"decision {name!r}", Counter(draw[name] for draw in draws), options)
    names = list(DECISIONS)
    for i, one_name in enumerate(names):
        for other in names[:i]:
            pairs = [(a, b) for a in DECISIONS[one_name] for b in DECISIONS[other]]
            found = Counter((draw[one_name], draw[other]) for draw in draws)
            _even(f"the pair {one_name!r} and {other!r}", found, pairs, "draw anew for each decision")
    print("✓ sample: every network is as likely as any other")


def _draws(fn: Callable[..., Any], count: int) -> list[dict]:
    rng = np.random.default_rng(1)
    return [_call(fn, DECISIONS, rng) for _ in range(count)]


def _call(fn: Callable[..., Any], decisions: dict, rng: np.random.Generator) -> Any:
    try:
        got = fn(dict(decisions), rng)
    except NotImplementedError as error:
        raise CheckFailed("sample is not written yet: replace `raise NotImplementedError()` by your code.") from error
    except Exception as error:  # the reader's code may raise anything: it is the thing being checked
        raise CheckFailed(f"sample({decisions}, rng)\n  raised {type(error).__name__}: {str(error)[:300]}") from error
    if got is None or got is ...:
        raise CheckFailed("sample returned nothing: is there a `return` in front of the result?")
    return got


def _inside(decisions: dict, choices: Any) -> None:
    """Raise CheckFailed unless there is one option of each decision."""
    where = f"sample({decisions}, rng)\n  returned {choices!r:.200}\n  "
    if not isinstance(choices, dict):
        raise CheckFailed(f"{where}It is a {type(choices).__name__}: give a dictionary, decision -> option.")
    if choices.keys() != decisions.keys():
        raise CheckFailed(f"{where}It must hold each decision once: {', '.join(decisions)}.")
    for name, options in decisions.items():
        value = choices[name]
        if isinstance(value, list | tuple | np.ndarray):
            raise CheckFailed(f"{where}{name!r} is {value!r}: a network takes a single option, not several.")
        if value not in options or isinstance(value, bool | np.bool_) != isinstance(options[0], bool):
            index = isinstance(value, int | np.integer) and 0 <= value < len(options)
            advice = "\n  Likely: it is the index; return options[index]." if index else ""
            raise CheckFailed(f"{where}{name!r} is {value!r}, and its options are {options}.{advice}")


def _even(what: str, found: Counter, options: Sequence, advice: str = "") -> None:
    """Raise CheckFailed unless all options occur, each about as often as any other."""
    expected = DRAWS / len(options)
    for option in options:
        if found[option] == 0:
            which = " (the last one)" if option == options[-1] else ""
            likely = advice or "rng.integers(n) leaves out n itself: it takes the number of options, not the last index"
            raise CheckFailed(f"sample: in {DRAWS} networks, {what} was never {option!r}{which}.\n  Likely: {likely}.")
    slack = 6 * (expected * (1 - 1 / len(options))) ** 0.5
    for option in options:
        if abs(found[option] - expected) > slack:
            raise CheckFailed(
                f"sample: in {DRAWS} networks, {what} was {option!r} {found[option]} times, and about {expected:.0f} "
                f"would be fair.\n  Likely: {advice or 'the options are not drawn with equal probability'}."
            )
