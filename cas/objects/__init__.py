"""Floor 3: objects in and out of packs: put, get, batch, look-up, chunked content."""
