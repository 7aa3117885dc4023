"""Collecting garbage beside writers: what is kept, what goes, and packs made dense."""
