"""Self-checks of the exercises, one module per notebook: `from yolonas_lab.teaching.checks import nb01`."""
