"""Benchmarks: each beside a peer in one run (SPEC section 11)."""
