"""The numbers that the notebooks draw were made with the settings that are committed beside them."""

import json
from pathlib import Path

import pytest

from yolonas_lab.experiments import CLAIMS, find_claim, load_result, settings_digest, table
from yolonas_lab.experiments.claim import plain
from yolonas_lab.experiments.harness import command
from yolonas_lab.experiments.results import RESULTS_DIR

NO_CLAIM = {"search_ranking.json"}  # of data_scripts/rank_guesses.py, see tests/search/test_rank_guesses.py
MEASURED = [name for name in CLAIMS if (RESULTS_DIR / f"{name}.json").exists()]  # a claim may wait for its numbers


def test_every_result_belongs_to_a_claim():
    assert {path.name for path in RESULTS_DIR.glob("*")} - NO_CLAIM <= {f"{name}.json" for name in CLAIMS}


@pytest.mark.parametrize("name", MEASURED)
def test_each_result_was_made_with_the_committed_settings(name):
    claim, result = find_claim(name), load_result(name)
    assert dict(result.settings) == plain(claim.SETTINGS)
    assert result.settings_digest == settings_digest(plain(claim.SETTINGS))
    assert result.metrics == claim.METRICS and result.comparisons == claim.COMPARISONS
    assert result.question == claim.QUESTION
    assert result.budget == 1 and result.command == command(name, len(result.seeds), 1.0)
    assert result.seeds == list(range(len(result.seeds))) and len(result.seeds) >= 5
    assert len(result.data_digest) == 64 and "1 thread used" in result.machine and result.git_revisions
    assert name in table(result)


@pytest.mark.parametrize("name", MEASURED)
def test_the_stored_differences_are_those_of_the_seeds(name):
    stored = json.loads((Path(RESULTS_DIR) / f"{name}.json").read_text(encoding="utf-8"))["differences"]
    computed = load_result(name).differences()
    assert len(stored) == len(computed) > 0
    for kept, fresh in zip(stored, computed, strict=True):
        assert (kept["arm"], kept["baseline"], kept["metric"]) == fresh[:3]
        assert [kept["mean"], kept["low"], kept["high"]] == pytest.approx([fresh.mean, fresh.low, fresh.high], abs=1e-6)
