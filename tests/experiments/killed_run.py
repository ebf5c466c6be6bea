"""Runs the toy claim in a process of its own, for a test to kill: killed_run.py WORK_DIR SEEDS PROCESSES."""

import sys

import toy_claim

from yolonas_lab.experiments import run_claim

if __name__ == "__main__":
    run_claim(toy_claim, int(sys.argv[2]), int(sys.argv[3]), work_dir=sys.argv[1])
