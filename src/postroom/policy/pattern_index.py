"""Many lists of patterns asked at once: which of them cover an address (SPEC section 2.6).

A set of lists is the bits of one integer, list n being bit n: sets of a thousand lists are united and cut in well under
a microsecond, and the lowest bit is the topmost list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class PatternIndex:
    """Lists of patterns (as `parse_patterns` gives them; an empty list covers every address), in order."""

    __slots__ = ("_addresses", "_all", "_domains", "_parents")

    def __init__(self, lists: Sequence[Iterable[str]]) -> None:
        self._all = 0
        self._addresses: dict[str, int] = {}
        self._domains: dict[str, int] = {}
        self._parents: dict[str, int] = {}
        for n, patterns in enumerate(lists):
            bit = 1 << n
            is_empty = True
            for pattern in patterns:
                is_empty = False
                self._enter(pattern, bit)
            if is_empty:
                self._all |= bit

    def _enter(self, pattern: str, bit: int) -> None:
        if pattern == "*":
            self._all |= bit
        elif not pattern.startswith("*@"):
            self._addresses[pattern] = self._addresses.get(pattern, 0) | bit
        elif pattern.startswith("*@*."):
            parent = pattern[4:]
            self._parents[parent] = self._parents.get(parent, 0) | bit
        else:
            domain = pattern[2:]
            self._domains[domain] = self._domains.get(domain, 0) | bit

    def covering(self, address: str) -> int:
        """The lists that cover `address` (no angle brackets; empty: the null reverse-path)."""
        found = self._all
        if not (self._addresses or self._domains or self._parents):
            return found
        address = address.lower()
        found |= self._addresses.get(address, 0)
        domain = address.rpartition("@")[2]
        found |= self._domains.get(domain, 0)
        if self._parents:
            parent = domain.partition(".")[2]
            while parent:
                found |= self._parents.get(parent, 0)
                parent = parent.partition(".")[2]
        return found
