"""Repair: what a damaged store still holds, and a plan of what can be done with it."""
