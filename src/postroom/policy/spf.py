"""SPF records read (RFC 7208 sections 4.5, 5 and 7): their terms, and what is wrong with them.

By hand, since the test of a connection must say which term does what and what to publish instead; libraries give the
verdict alone, over sockets of their own.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Terms that make receivers ask the DNS may be so many (section 4.6.4).
MOST_LOOKUPS = 10

_ASKING = frozenset({"include", "a", "mx", "ptr", "exists"})
_RESULTS = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_TERM = re.compile(r"(?P<sign>[-+~?]?)(?P<name>all|include|a|mx|ptr|ip4|ip6|exists)(?P<rest>[:/].*)?", re.IGNORECASE)
_MODIFIER = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9._-]*)=(?P<value>.*)")
_LENGTHS = re.compile(r"(?P<name>.*?)(/(?P<v4>[0-9]{1,2}))?(//(?P<v6>[0-9]{1,3}))?")
_MACRO = re.compile(
    r"%(?:\{(?P<letter>[slodiphcrtvSLODIPHCRTV])(?P<keep>[0-9]{0,3})(?P<back>r?)(?P<by>[-.+,/_=]*)\}|([%_-]))"
)


@dataclass(frozen=True, slots=True)
class Term:
    """One mechanism: what holds where it matches, and for `a` and `mx` how much of an address counts."""

    text: str
    name: str
    result: str
    value: str = ""
    v4_bits: int = 32
    v6_bits: int = 128

    @property
    def asks(self) -> bool:
        """Whether a receiver must ask the DNS for it."""
        return self.name in _ASKING


@dataclass(frozen=True, slots=True)
class SpfRecord:
    """A record; `faults` say what receivers find wrong with it, which ends their check with "permerror"."""

    text: str
    terms: tuple[Term, ...]
    redirect: str = ""
    faults: tuple[str, ...] = ()

    @property
    def ends(self) -> bool:
        """Whether it says what holds for everybody else."""
        return bool(self.redirect) or any(term.name == "all" for term in self.terms)

    def including(self, domain: str) -> str:
        """The record with an include of `domain` in front of what holds for everybody else."""
        return self._with(f"include:{domain}")

    def naming(self, address: str) -> str:
        """The record with this IP address in front of what holds for everybody else."""
        return self._with(f"{'ip6' if ':' in address else 'ip4'}:{address}")

    def closed(self) -> str:
        """The record, with everybody else doubted."""
        return " ".join("~all" if word.lower() in ("all", "+all") else word for word in self.text.split())

    def _with(self, term: str) -> str:
        words = self.text.split()
        at = next((n for n, word in enumerate(words) if word.lstrip("+-~?").lower() == "all"), len(words))
        tail = words[at:] or ([] if self.redirect else ["~all"])
        return " ".join([*words[:at], term, *tail])


def spf_records(texts: Sequence[bytes]) -> list[str]:
    """Those of the TXT records that are SPF records (section 4.5)."""
    found = [text.decode("ascii", "replace") for text in texts]
    return [text for text in found if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")]


def parse_spf(text: str) -> SpfRecord:
    """The record `text`, with the faults in it."""
    terms: list[Term] = []
    faults: list[str] = []
    redirect = ""
    for word in text.split()[1:]:
        modifier = _MODIFIER.fullmatch(word)
        if modifier is not None:
            if modifier["name"].lower() == "redirect":
                redirect = modifier["value"]
            continue
        term = _term(word)
        if term is None:
            faults.append(f"{word!r} is no term of SPF")
        else:
            terms.append(term)
    if any(term.name == "all" for term in terms):
        redirect = ""  # it is not looked at then (section 6.1)
    return SpfRecord(text, tuple(terms), redirect, tuple(faults))


def _term(word: str) -> Term | None:
    found = _TERM.fullmatch(word)
    if found is None:
        return None
    name, rest, result = found["name"].lower(), found["rest"] or "", _RESULTS[found["sign"] or "+"]
    if name in ("ip4", "ip6"):
        try:
            network = ipaddress.ip_network(rest[1:], strict=False)
        except ValueError:
            return None
        return Term(word, name, result, str(network)) if network.version == int(name[2]) else None
    if name == "all":
        return Term(word, name, result) if not rest else None
    if name in ("include", "exists"):
        return Term(word, name, result, rest[1:]) if len(rest) > 1 and rest[0] == ":" else None
    lengths = _LENGTHS.fullmatch(rest)
    if lengths is None or (lengths["name"] and (lengths["name"][0] != ":" or len(lengths["name"]) == 1)):
        return None
    v4, v6 = int(lengths["v4"] or 32), int(lengths["v6"] or 128)
    return Term(word, name, result, lengths["name"][1:], v4, v6) if v4 <= 32 and v6 <= 128 else None


def expanded(text: str, *, domain: str, sender: str, address: str, helo: str) -> str:
    """`text` with its macros filled in (section 7)."""
    local, _, of = sender.rpartition("@")
    ip = ipaddress.ip_address(address)
    dotted = ".".join(ip.exploded.replace(":", "")) if ip.version == 6 else str(ip)
    values = {"s": sender, "l": local or "postmaster", "o": of, "d": domain, "i": dotted, "h": helo, "p": "unknown"}
    values |= {"v": "ip6" if ip.version == 6 else "in-addr", "c": address, "r": "unknown", "t": "0"}

    def fill(found: re.Match[str]) -> str:
        if found["letter"] is None:
            return {"%": "%", "_": " ", "-": "%20"}[found[5]]
        parts = re.split(f"[{re.escape(found['by'] or '.')}]", values[found["letter"].lower()])
        if found["back"]:
            parts.reverse()
        return ".".join(parts[-int(found["keep"]) :] if found["keep"] and int(found["keep"]) else parts)

    return _MACRO.sub(fill, text)
