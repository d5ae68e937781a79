"""A gateway whose messages may bring connections, and relays, for the tests of this folder."""

from tests.flow.test_dynamic_connections import gateway, other, relay

__all__ = ["gateway", "other", "relay"]
