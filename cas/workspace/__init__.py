"""The domain: aggregates, collections, units of work, contexts and events over one store."""
