"""DMARC records read, and what is aligned with whom (RFC 7489 sections 3.1 and 6.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_POLICIES = ("none", "quarantine", "reject")


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """A record as found at `_dmarc.` of `domain`; `faults` say what makes receivers take no notice of it."""

    domain: str
    text: str
    policy: str
    is_strict_spf: bool = False
    is_strict_dkim: bool = False
    reports: str = ""
    faults: tuple[str, ...] = ()


def dmarc_records(texts: Sequence[bytes]) -> list[str]:
    """Those of the TXT records that are DMARC records."""
    found = [text.decode("ascii", "replace").strip() for text in texts]
    return [text for text in found if text.replace(" ", "").lower().startswith("v=dmarc1")]


def parse_dmarc(text: str, domain: str, sender_domain: str) -> DmarcRecord:
    """The record, found at `domain`, as it holds for mail from `sender_domain`: below `domain` its `sp` counts."""
    tags: dict[str, str] = {}
    faults = []
    for part in filter(None, (one.strip() for one in text.split(";"))):
        name, equals, value = part.partition("=")
        if not equals:
            faults.append(f"{part!r} has no value")
            continue
        tags[name.strip().lower()] = value.strip()
    policy = tags.get("p", "").lower()
    if policy not in _POLICIES:
        faults.append(f"p is {policy!r}" if policy else "it has no p, the policy")
    if domain != sender_domain and tags.get("sp", "").lower() in _POLICIES:
        policy = tags["sp"].lower()
    strict = {name: tags.get(name, "r").lower() == "s" for name in ("aspf", "adkim")}
    return DmarcRecord(domain, text, policy, strict["aspf"], strict["adkim"], tags.get("rua", ""), tuple(faults))


def is_aligned(domain: str, sender_domain: str, record_domain: str, *, is_strict: bool) -> bool:
    """Whether `domain` (that of a signature, or of the reverse-path) stands for `sender_domain`, that of From.

    Relaxed, they need the same organisation: both are `record_domain`, where the policy is, or below it.
    """
    if domain == sender_domain or is_strict:
        return domain == sender_domain
    return all(one == record_domain or one.endswith(f".{record_domain}") for one in (domain, sender_domain))
