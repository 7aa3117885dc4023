"""Backups: increments of a store in another place, and the way back from them."""
