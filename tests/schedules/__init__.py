"""Interleavings of gc with writers and movers, of the real code, step by step."""
