"""The numbers that the notebooks draw were made with the settings that are committed beside them."""

import json

import pytest

from yolonas_lab.experiments import CLAIMS, RESULTS_DIR, find_claim, load_result, settings_digest, table
from yolonas_lab.experiments.harness import command, plain

NO_CLAIM = {"search_ranking.json"}  # of data_scripts/rank_guesses.py, see tests/search/test_rank_guesses.py
MEASURED = [name for name in CLAIMS if (RESULTS_DIR / f"{name}.json").exists()]  # a claim may wait for its numbers


def test_every_result_belongs_to_a_claim_and_every_claim_is_found():
    assert {path.name for path in RESULTS_DIR.glob("*")} - NO_CLAIM <= {f"{name}.json" for name in CLAIMS}
    assert [find_claim(name).name for name in CLAIMS] == list(CLAIMS)
    with pytest.raises(ValueError, match="did you mean 'dfl_head'"):
        find_claim("dfl_heads")


@pytest.mark.parametrize("name", MEASURED)
def test_each_result_was_made_with_the_committed_settings(name):
    claim, result = find_claim(name), load_result(name)
    assert dict(result.settings) == plain(claim.settings)
    assert result.settings_digest == claim.digest == settings_digest(result.settings)
    assert result.metrics == claim.metrics and result.comparisons == claim.comparisons
    assert result.question == claim.question and claim.question.endswith("?")
    assert result.budget == 1 and result.command == command(name, len(result.seeds), 1.0)
    assert result.seeds == list(range(len(result.seeds))) and len(result.seeds) >= 5
    assert len(result.data_digest) == 64 and "1 thread used" in result.machine and result.git_revisions
    assert name in table(result)


@pytest.mark.parametrize("name", MEASURED)
def test_the_stored_differences_are_those_of_the_seeds(name):
    stored = json.loads((RESULTS_DIR / f"{name}.json").read_text(encoding="utf-8"))["differences"]
    computed = load_result(name).differences()
    assert len(stored) == len(computed) > 0
    for kept, fresh in zip(stored, computed, strict=True):
        assert (kept["arm"], kept["baseline"], kept["metric"]) == fresh[:3]
        assert [kept["mean"], kept["low"], kept["high"]] == pytest.approx([fresh.mean, fresh.low, fresh.high], abs=1e-6)
