"""Floor 4: versions: journal, refs, snapshots, transactions, and the handle users hold."""
