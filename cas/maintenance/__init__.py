"""Floor 5: upkeep of a store: checking every byte, counting what is there."""
