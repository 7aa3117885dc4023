"""Checking a store: structure, closure, every byte; findings are values."""
