"""Naming the nearest valid choice when a name is misspelt."""

import difflib
from collections.abc import Iterable


def unknown_name(what: str, name: object, choices: Iterable[str]) -> str:
    """One sentence for an unknown name: what it was, the nearest match if there is one, and every valid choice."""
    choices = list(choices)
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"Unknown {what} '{name}'; {hint}choose one of: {', '.join(choices)}."
