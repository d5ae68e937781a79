"""Accounts: their fields as people write them, and the ordered list (SPEC section 2)."""
