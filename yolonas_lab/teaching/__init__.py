"""What the notebooks need besides the detector: widgets, one figure style, self-checking exercises, notebook tools.

Start every notebook with `from yolonas_lab.teaching import setup_notebook, explore, figures`. The checks of notebook NN
are `from yolonas_lab.teaching.checks import nbNN`. Importing this package imports neither torch nor matplotlib, so
that its command lines answer at once.
"""

from yolonas_lab.teaching.explore import explore as explore
from yolonas_lab.teaching.setup import setup_notebook as setup_notebook

__all__ = ["explore", "setup_notebook"]
