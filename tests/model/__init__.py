"""The explicit-state model of existence and garbage collection (docs/design/001)."""
