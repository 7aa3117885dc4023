"""Use cases that all fronts share: typed requests in, typed results out, nothing printed."""
