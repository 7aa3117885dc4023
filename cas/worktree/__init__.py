"""Working folders: import, restore, compare."""
