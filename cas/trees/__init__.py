"""Floor 2, a wing: the search trees behind directories and refs. Pure algorithms, no I/O."""
