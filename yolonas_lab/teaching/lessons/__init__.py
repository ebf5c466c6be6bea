"""The figures and simulations of one notebook each: lessons/nb05.py belongs to notebook 05."""
