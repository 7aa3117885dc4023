"""Chores of this checkout, each a program of its own; `tools/dev.py` runs them."""
