"""Floor 2, wing of bytes: buckets that keep files, packs and records inside them, the index."""
