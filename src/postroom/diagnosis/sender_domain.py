"""SPF, DKIM and DMARC of the sender's domain, as far as they can be known from this account (SPEC section 7).

Receivers judge the address that mail reaches them from. Of a direct account that is this machine's; of a relay it is
one of the relay's own, of which only what the provider tells people to include is known.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from dataclasses import dataclass
from typing import Any

from ..mime.dkim import dns_record
from ..model.account import Account, AccountKind
from ..net.dns import DnsFailed, NoSuchName
from ..net.spf import Check, Names, Survey, survey
from ..policy.dmarc import DmarcRecord, dmarc_records, is_aligned, parse_dmarc
from ..policy.signing import signing_keys
from ..policy.spf import MOST_LOOKUPS, SpfRecord
from .advice import finding
from .stages import Outcome, Recorder, Stage

#: Domains that are looked at for a DMARC record, from the sender's own upwards.
_MOST_PARENTS = 5


@dataclass(frozen=True, slots=True)
class SenderDomainTest:
    """Looks at the domain of a sender; `include` is what the provider's preset tells to include in SPF, "" if nothing
    is known of it."""

    account: Account
    names: Names
    include: str = ""
    helo: str = ""

    async def __call__(self, recorder: Recorder, sender: str) -> None:
        """Add the stages spf, dkim and dmarc."""
        domain = _ascii(sender.rpartition("@")[2])
        if not domain or domain.startswith("["):
            return
        recorder.began("spf")
        is_spf_well = await self._spf(recorder, domain, sender)
        if any(one.rule == "dns-silent" for one in recorder.current.advice):  # each further question would wait in vain
            for name in ("dkim", "dmarc"):
                recorder.skip(name, "the DNS does not answer")
            return
        recorder.began("dkim")
        signed = await self._dkim(recorder.current, domain)
        recorder.began("dmarc")
        await self._dmarc(recorder.current, domain, signed, is_spf_well=is_spf_well)
        recorder.end()

    # SPF

    async def _spf(self, recorder: Recorder, domain: str, sender: str) -> bool:
        """Whether it lets this account's mail through for certain."""
        stage = recorder.current
        found = await survey(self.names, domain)
        stage.facts |= {"domain": domain, "records": found.records}
        if found.unknown and not found.records:
            stage.worsen(Outcome.WARNING, found.unknown, finding("dns-silent"))
            return False
        proposed = f"v=spf1 {f'include:{self.include}' if self.include else 'mx'} ~all"
        if not found.records:
            advice = finding("spf-missing", record=f'{domain}. IN TXT "{proposed}"', domain=domain)
            stage.worsen(Outcome.WARNING, "there is no SPF record", advice)
            return False
        if found.record is None:
            advice = finding("spf-several", domain=domain)
            stage.worsen(Outcome.FAILED, f"there are {len(found.records)} SPF records", advice)
            return False
        _judge_record(stage, domain, found, found.record)
        return await self._judge_address(recorder, stage, domain, sender, found, found.record)

    async def _judge_address(
        self, recorder: Recorder, stage: Stage, domain: str, sender: str, found: Survey, record: SpfRecord
    ) -> bool:
        is_direct = self.account.kind is AccountKind.DIRECT
        connected = recorder.named("connect")
        facts = connected.facts if connected is not None else {}
        address = str(facts.get("local_address" if is_direct else "address", ""))
        if self.account.kind is AccountKind.GRAPH:  # mail leaves by others than who is asked
            address = ""
        result = ""
        if address and ipaddress.ip_address(address.partition("%")[0]).is_global:
            check = Check(self.names, address=address, sender=sender, helo=self.helo)
            result = await check.run(domain)
            stage.facts |= {"checked_address": address, "result": result, "term": check.matched}
        if self.include and self.include in found.included:
            stage.facts["included"] = self.include
            return stage.outcome is not Outcome.FAILED
        if result == "pass":
            return True
        if self.include:
            line = f'{domain}. IN TXT "{record.including(self.include)}"'
            advice = finding("spf-provider-missing", record=line, domain=domain, include=self.include)
            stage.worsen(Outcome.WARNING, f"include:{self.include} is not in it", advice)
        elif result in ("fail", "softfail") and is_direct:
            line = f'{domain}. IN TXT "{record.naming(address)}"'
            advice = finding("spf-address-missing", record=line, domain=domain, address=address)
            stage.worsen(Outcome.FAILED, f"{address} comes to {result}", advice)
        else:
            whose = "this machine's address outside" if is_direct else "from where the relay sends"
            stage.worsen(stage.outcome, f"{whose} is not known", finding("spf-not-known"))
        return False

    # DKIM

    async def _dkim(self, stage: Stage, domain: str) -> str:
        """The domain of a signature that can be verified, "" where there is none."""
        account = self.account
        if account.kind is AccountKind.GRAPH:
            return await self._of_exchange(stage, domain)
        try:
            keys = signing_keys(account)
        except ValueError as error:
            advice = finding("dkim-key-unusable", account=account.name)
            stage.worsen(Outcome.FAILED, f"a key {error}", advice)
            return ""
        if not keys:
            advice = finding("dkim-not-signed", account=account.name, domain=domain)
            stage.worsen(Outcome.SKIPPED, "the account does not sign", advice)
            return ""
        good = ""
        for key in keys:
            wanted = dns_record(key)
            if await self._judge_key(stage, wanted.name, wanted.value, wanted.zone_line()):
                good = good or key.domain
        return good

    async def _of_exchange(self, stage: Stage, domain: str) -> str:
        """Exchange signs by itself, for the domain where its keys are published, else for the tenant's own
        (learn.microsoft.com/defender-office-365/email-authentication-dkim-configure)."""
        published = []
        for selector in ("selector1", "selector2"):
            try:
                texts = await self.names.texts(f"{selector}._domainkey.{domain}")
            except NoSuchName:
                continue
            except DnsFailed as error:
                stage.worsen(Outcome.WARNING, str(error), finding("dns-silent"))
                return ""
            if any(_tags(text.decode("ascii", "replace")).get("p") for text in texts):
                published.append(selector)
        stage.facts["selectors"] = published
        if published:
            return domain
        advice = finding("dkim-of-exchange", domain=domain)
        stage.worsen(Outcome.WARNING, f"there are no keys of Exchange for {domain}", advice)
        return ""

    async def _judge_key(self, stage: Stage, name: str, value: str, zone_line: str) -> bool:
        try:
            published = [text.decode("ascii", "replace") for text in await self.names.texts(name)]
        except NoSuchName:
            published = []
        except DnsFailed as error:
            stage.worsen(Outcome.WARNING, str(error), finding("dns-silent"))
            return False
        stage.facts.setdefault("keys", []).append({"name": name, "published": published})
        keys = [_tags(text) for text in published if "p=" in text.replace(" ", "")]
        wanted = _tags(value)
        if not keys:
            advice = finding("dkim-not-published", record=zone_line)
            stage.worsen(Outcome.FAILED, f"there is no key at {name}", advice)
            return False
        if len(keys) > 1:
            advice = finding("dkim-several", record=zone_line)
            stage.worsen(Outcome.FAILED, f"there are {len(keys)} keys at {name}", advice)
            return False
        if not keys[0].get("p"):
            advice = finding("dkim-revoked", record=zone_line)
            stage.worsen(Outcome.FAILED, f"the key at {name} is revoked", advice)
            return False
        if _octets(keys[0]["p"]) != _octets(wanted["p"]):
            advice = finding("dkim-other-key", record=zone_line)
            stage.worsen(Outcome.FAILED, f"the key at {name} is another one", advice)
            return False
        if "y" in keys[0].get("t", "").split(":"):
            advice = finding("dkim-testing", record=zone_line)
            stage.worsen(Outcome.WARNING, f"the key at {name} is for tests", advice)
        return True

    # DMARC

    async def _dmarc(self, stage: Stage, domain: str, signed: str, *, is_spf_well: bool) -> None:
        try:
            found = await self._policy(domain)
        except DnsFailed as error:
            stage.worsen(Outcome.WARNING, str(error), finding("dns-silent"))
            return
        if isinstance(found, int) or found is None:
            _no_policy(stage, domain, found or 0)
            return
        stage.facts |= {"domain": found.domain, "record": found.text, "policy": found.policy}
        if found.faults:
            least = f'_dmarc.{found.domain}. IN TXT "v=DMARC1; p=none"'
            advice = finding("dmarc-broken", record=least)
            stage.worsen(Outcome.FAILED, "; ".join(found.faults), advice)
            return
        unaligned = "dmarc-nothing-of-exchange" if self.account.kind is AccountKind.GRAPH else "dmarc-nothing-aligned"
        _judge_alignment(stage, found, domain, signed, unaligned, is_spf_well=is_spf_well)

    async def _policy(self, domain: str) -> DmarcRecord | int | None:
        """The record that holds for `domain`, its own or of one above it; a number: there are so many."""
        labels = domain.split(".")
        for n in range(min(len(labels) - 1, _MOST_PARENTS) or 1):
            at = ".".join(labels[n:])
            try:
                records = dmarc_records(await self.names.texts(f"_dmarc.{at}"))
            except NoSuchName:
                continue
            if len(records) > 1:
                return len(records)
            if records:
                return parse_dmarc(records[0], at, domain)
        return None


def _judge_record(stage: Stage, domain: str, found: Survey, record: SpfRecord) -> None:
    stage.facts["lookups"] = found.lookups
    if found.faults:
        advice = finding("spf-broken")
        stage.worsen(Outcome.FAILED, "; ".join(found.faults[:5]), advice)
    if found.lookups > MOST_LOOKUPS:
        advice = finding("spf-too-many-lookups", lookups=str(found.lookups))
        stage.worsen(Outcome.FAILED, f"it needs {found.lookups} look-ups", advice)
    if any(term.name == "all" and term.result == "pass" for term in record.terms):
        line = f'{domain}. IN TXT "{record.closed()}"'
        advice = finding("spf-open", record=line, domain=domain)
        stage.worsen(Outcome.FAILED, "it ends with +all", advice)
    elif not record.ends:
        line = f'{domain}. IN TXT "{record.text} ~all"'
        advice = finding("spf-without-all", record=line)
        stage.worsen(Outcome.WARNING, "it has no all at its end", advice)
    if any(term.name == "ptr" for term in record.terms):
        advice = finding("spf-ptr")
        stage.worsen(Outcome.WARNING, "it uses ptr", advice)


def _no_policy(stage: Stage, domain: str, several: int) -> None:
    record = f'_dmarc.{domain}. IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@{domain}"'
    if several:
        advice = finding("dmarc-several")
        stage.worsen(Outcome.FAILED, f"there are {several} DMARC records", advice)
        return
    advice = finding("dmarc-missing", record=record, domain=domain)
    stage.worsen(Outcome.WARNING, "there is no DMARC record", advice)


def _judge_alignment(
    stage: Stage, found: DmarcRecord, domain: str, signed: str, unaligned: str, *, is_spf_well: bool
) -> None:
    by_dkim = bool(signed) and is_aligned(signed, domain, found.domain, is_strict=found.is_strict_dkim)
    ways = [way for way, is_so in (("dkim", by_dkim), ("spf", is_spf_well)) if is_so]
    stage.facts["aligned_by"] = ways
    if ways:
        return
    if signed and not by_dkim:
        advice = finding("dmarc-not-aligned", signed=signed, domain=domain)
        outcome = Outcome.WARNING if found.policy == "none" else Outcome.FAILED
        stage.worsen(outcome, "the signature is not aligned with From", advice)
        return
    if found.policy in ("quarantine", "reject"):
        advice = finding(unaligned, domain=domain, policy=found.policy)
        stage.worsen(Outcome.WARNING, "it is not known that anything is aligned", advice)


def _tags(text: str) -> dict[str, str]:
    """The tags of a DKIM record (RFC 6376 section 3.2)."""
    found: dict[str, Any] = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        if equals:
            found.setdefault(name.strip(), "".join(value.split()))
    return found


def _octets(text: str) -> bytes:
    """The key in base64; RSA keys are compared as written, since there is one form that everybody publishes."""
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return text.encode()


def _ascii(domain: str) -> str:
    if domain.isascii():
        return domain.lower()
    import idna

    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return ""
