"""`python -m yolonas_lab`: see `yolonas_lab.cli`."""

from yolonas_lab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
