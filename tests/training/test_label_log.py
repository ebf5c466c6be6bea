import pytest

from yolonas_lab.training.pseudo_labels import LabelLog, different

MADE = {"teacher": "a", "threshold": 0.5}


def filled(path, *names):
    with LabelLog(path, MADE) as log:
        for name in names:
            log.add(name, {"score": [0.5]})
    return path


def test_it_grows_by_a_line_per_image_and_remembers_them(tmp_path):
    path = filled(tmp_path / "log", "a.png", "b.png")
    assert len(path.read_text().splitlines()) == 3
    filled(path, "ä.png")
    log = LabelLog(path, MADE)
    assert list(log.entries) == ["a.png", "b.png", "ä.png"] and log.entries["a.png"] == {"score": [0.5]}
    log.delete()
    log.delete()
    assert not path.exists()


@pytest.mark.parametrize("torn", [b"{", b'{"file_name": "c.png"', b"\xc3"])
def test_a_line_that_was_cut_off_is_forgotten_and_spoils_no_later_one(tmp_path, torn):
    path = filled(tmp_path / "log", "a.png")
    path.write_bytes(path.read_bytes() + torn)
    filled(path, "b.png")
    assert list(LabelLog(path, MADE).entries) == ["a.png", "b.png"]


def test_a_first_line_that_was_cut_off_is_an_empty_log(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b'{"teacher": ')
    filled(path, "a.png")
    assert list(LabelLog(path, MADE).entries) == ["a.png"]


def test_it_is_for_one_call_only(tmp_path):
    path = filled(tmp_path / "log", "a.png")
    with pytest.raises(ValueError, match="was begun with another teacher, threshold: delete it"):
        LabelLog(path, {"teacher": "b", "threshold": 0.6})
    path.write_bytes(path.read_bytes() + b"no JSON\n")
    with pytest.raises(ValueError, match=r"Line 3 of .* is damaged"):
        LabelLog(path, MADE)


def test_differences_are_named():
    assert different(MADE, MADE) == []
    assert different(MADE, {"teacher": "a", "threshold": 0.4, "images": 3}) == ["images", "threshold"]
