"""Applications: their fields as people write them, and who is asking (SPEC sections 1 and 4)."""
