"""Floor 1: ids, object values, canonical encoding, the grammar of names. No I/O, no time."""
