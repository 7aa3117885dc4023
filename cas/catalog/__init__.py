"""Floor 2, wing of truth: the catalog says which packs count and what the refs are."""
