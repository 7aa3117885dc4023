"""Harnesses that tests of any bucket, catalog or store can use: contracts, crashes, faults."""
