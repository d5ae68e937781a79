"""The settings of a running gateway: shown with their origin, changed without a restart (SPEC section 3)."""
