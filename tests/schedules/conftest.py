"""Counts are noted as those of the crash tests are."""

from tests.crash.conftest import note

__all__ = ["note"]
