import pytest

from yolonas_lab import common as module
from yolonas_lab.common import progress, progress_bar


@pytest.mark.parametrize("static", ["", "0", "1"])
def test_items_pass_through_unchanged(monkeypatch, static):
    monkeypatch.setenv("YOLONAS_LAB_STATIC", static)
    assert list(progress(range(5), "counting")) == [0, 1, 2, 3, 4]
    assert list(progress((i for i in "abc"), "spelling", total=3)) == ["a", "b", "c"]


def test_the_bar_is_shown_live_and_hidden_in_static_mode(monkeypatch, capsys):
    monkeypatch.setattr(module, "SHOWN_AFTER", 0)
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "0")
    list(progress(range(3), "counting sheep"))
    assert "counting sheep" in capsys.readouterr().err
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "1")
    list(progress(range(3), "counting sheep"))
    assert capsys.readouterr().err == ""


def test_a_bar_moved_by_hand(monkeypatch, capsys):
    monkeypatch.setattr(module, "SHOWN_AFTER", 0)
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "0")
    with progress_bar(2, "drawing", "image") as bar:
        bar.update()
        bar.update()
    assert bar.n == 2 and "drawing" in capsys.readouterr().err
