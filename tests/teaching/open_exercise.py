"""What every check says of an exercise that nobody has solved yet."""

from collections.abc import Callable
from typing import Any

import pytest

from yolonas_lab.teaching.exercises import CheckFailed


def assert_called_open(check: Callable[[Any], object]) -> None:
    """A blank is called not written yet."""

    def blank(*arguments: Any) -> None:
        raise NotImplementedError

    with pytest.raises(CheckFailed, match="not written yet"):
        check(blank)
