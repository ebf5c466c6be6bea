"""The script that ranks guesses, on a few images and steps; the committed ranking is what its numbers say."""

import json

import pytest
import torch
from data_script import load_script

from yolonas_lab.experiments.harness import RESULTS_DIR, plain
from yolonas_lab.search import SUPERNET_SPACE, choices_of, config_of, proxies
from yolonas_lab.search.proxies import kendall

make_weights = load_script("make_weights")  # first, for the other imports it
rank_guesses = load_script("rank_guesses")
GUESSES = {"supernet", "short training", "parameters", "macs", "naswot", "grad_norm", "synflow"}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "1")
    few = {**make_weights.SETTINGS, "train_images": 128, "val_images": 6}
    monkeypatch.setattr(make_weights, "SETTINGS", few)  # of what is drawn
    monkeypatch.setattr(rank_guesses, "SETTINGS", few)
    monkeypatch.setattr(rank_guesses, "SHORT_STEPS", 1)
    monkeypatch.setattr(rank_guesses, "SCORED_IMAGES", 3)
    torch.set_num_threads(1)


@pytest.mark.slow
def test_networks_are_guessed_trained_and_ranked(small, tmp_path, monkeypatch):
    options = rank_guesses.parse(
        ["--networks=5", "--steps=1", f"--out={tmp_path / 'ranking.json'}", f"--work-dir={tmp_path / 'work'}"]
    )
    for number in (0, 4):
        rank_guesses.measure(number, options)
    first, last = (json.loads(rank_guesses._row_path(n, options).read_text(encoding="utf-8")) for n in (0, 4))
    assert all(set(row["guesses"]) == set(row["seconds"]) == GUESSES for row in (first, last))
    assert first["guesses"]["macs"] < last["guesses"]["macs"] and first["choices"] != last["choices"]

    for number in range(5):  # as if all had been trained, and the larger the better
        guesses = {name: value + number / 10 for name, value in first["guesses"].items()}
        guesses["synflow"] *= -1
        row = first | {"ap": 0.1 * number, "guesses": guesses}
        rank_guesses._row_path(number, options).write_text(json.dumps(row))
    text = rank_guesses._collect(options)
    found = json.loads((tmp_path / "ranking.json").read_text(encoding="utf-8"))
    taus = {name: tau["tau"] for name, tau in found["taus"].items()}
    assert taus == pytest.approx(dict.fromkeys(GUESSES, 1.0) | {"synflow": -1.0})
    assert "0.000 to 0.400" in text and "synflow" in text and len(found["networks"]) == 5


def test_bad_settings_end_with_a_sentence(tmp_path, capsys):
    assert rank_guesses.main(["--networks", "3", "--work-dir", str(tmp_path)]) == 2
    assert rank_guesses.main(["--supernet", str(tmp_path / "none"), "--work-dir", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert "--networks is 3: give at least 5" in errors and "none" in errors


@pytest.mark.slow
def test_the_committed_ranking_is_what_its_numbers_say():
    found = json.loads((RESULTS_DIR / "search_ranking.json").read_text(encoding="utf-8"))
    rows = found["networks"]
    assert len(rows) >= 16 and found["steps"] == rank_guesses.parse([]).steps
    assert found["settings"]["scored_images"] == rank_guesses.SCORED_IMAGES
    assert plain(rank_guesses.SETTINGS).items() <= found["settings"].items()
    configs = [config_of(SUPERNET_SPACE, row["choices"]) for row in rows]
    assert [choices_of(c) for c in configs] == [choices_of(c) for c in rank_guesses.networks(len(rows))]
    assert [proxies.macs(config, 64, 6) for config in configs] == [row["guesses"]["macs"] for row in rows]
    for name, stored in found["taus"].items():
        again = kendall([row["guesses"][name] for row in rows], [row["ap"] for row in rows])
        assert stored == pytest.approx(again._asdict())
