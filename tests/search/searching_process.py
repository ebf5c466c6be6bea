"""One of several processes that search together: python searching_process.py STORAGE NETWORKS LOG [KILL_AFTER]."""

import os
import signal
import sys
from pathlib import Path

from tests.search.test_evolve import WIDE, cheap_ap, cheap_ms
from yolonas_lab.search.evolve import evolve


def main(storage: str, networks: str, log: str, kill_after: str = "0") -> None:
    looked_at = []

    def ap_of(config):
        looked_at.append(config.name)
        Path(log).write_text("\n".join(looked_at))
        if len(looked_at) == int(kill_after):
            os.kill(os.getpid(), signal.SIGKILL)
        return cheap_ap(config)

    evolve(WIDE, ap_of, cheap_ms, int(networks), storage, population=8)


if __name__ == "__main__":
    main(*sys.argv[1:])
