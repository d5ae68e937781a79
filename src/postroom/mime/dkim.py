"""DKIM signatures (RFC 6376, RFC 8463): relaxed/relaxed, SHA-256, made of a head and the hash of the body."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from .head import HeadFields, scan

PrivateKey = RSAPrivateKey | Ed25519PrivateKey

#: RFC 8301 section 3.2: signers use 1024 bits at least, and verifiers need not read more than 4096.
LEAST_RSA_BITS, MOST_RSA_BITS = 1024, 4096

# What is signed (RFC 6376 section 5.4.1). A name that stands once more in h= than in the head can't be added on the way
# (section 8.15): that is done with what a reader is shown or answers to, and with the rest where it is there.
_SEALED = (b"from", b"reply-to", b"subject", b"date", b"to", b"cc")
_SEALED_WHERE_PRESENT = (
    b"sender", b"message-id", b"in-reply-to", b"references", b"mime-version", b"content-type",
    b"content-transfer-encoding",
)  # fmt: skip
_WHERE_PRESENT = (
    b"resent-date", b"resent-from", b"resent-sender", b"resent-to", b"resent-cc", b"resent-message-id", b"list-id",
    b"list-help", b"list-unsubscribe", b"list-unsubscribe-post", b"list-subscribe", b"list-post", b"list-owner",
    b"list-archive",
)  # fmt: skip

#: Fields to sign from which a head is no mail any more; it goes unsigned.
_MOST_FIELDS = 500

_LINE = 76
_WHITE_SPACE = re.compile(rb"[ \t]++")
_LINE_END = re.compile(rb"\r?\n")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, and where its public half lies in DNS; both names in ASCII."""

    domain: str
    selector: str
    private: PrivateKey

    @property
    def algorithm(self) -> str:
        """The value of a= (RFC 6376 section 3.5, RFC 8463 section 3)."""
        return "rsa-sha256" if isinstance(self.private, RSAPrivateKey) else "ed25519-sha256"


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A TXT record; `name` without the dot at its end."""

    name: str
    value: str

    def zone_line(self) -> str:
        """The record as a zone file has it: strings of at most 255 octets (RFC 6376 section 3.6.2.2)."""
        strings = " ".join(f'"{self.value[at : at + 255]}"' for at in range(0, len(self.value), 255))
        return f"{self.name}. IN TXT ( {strings} )"


def load_key(pem: str) -> PrivateKey:
    """The private key in `pem`, not encrypted.

    Raises:
        ValueError: it is none that DKIM can use; the text never quotes it.
    """
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        raise ValueError("holds no private key that can be read") from None
    if isinstance(key, RSAPrivateKey):
        if not LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS:
            raise ValueError(
                f"is an RSA key of {key.key_size} bits, and DKIM takes {LEAST_RSA_BITS} to {MOST_RSA_BITS}"
            )
        return key
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise ValueError("is neither an RSA nor an Ed25519 key")


def dns_record(key: SigningKey) -> DnsRecord:
    """What to publish so that signatures by `key` can be verified (RFC 6376 section 3.6, RFC 8463 section 4)."""
    public = key.private.public_key()
    if isinstance(key.private, RSAPrivateKey):
        kind = "rsa"
        octets = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    else:
        kind = "ed25519"
        octets = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    value = f"v=DKIM1; k={kind}; p={base64.b64encode(octets).decode('ascii')}"
    return DnsRecord(f"{key.selector}._domainkey.{key.domain}", value)


def signatures(
    head: bytes, body_hash: bytes, keys: Sequence[SigningKey], moment: datetime, leave_out: Collection[bytes] = ()
) -> bytes:
    """A DKIM-Signature field by each of `keys`, to be put on top of `head`; empty where there is no From to sign.

    `body_hash` is that of `mime.body_hash.BodyHash`; `moment` is aware. `leave_out` names fields, in small letters,
    that the relay is known to replace.
    """
    fields = scan(head)
    names = _signed_names(fields, leave_out)
    if not names:
        return b""
    signed = _canonical_fields(fields, names)
    return b"".join([_signature(key, names, signed, body_hash, moment) for key in keys])


def _signed_names(fields: HeadFields, leave_out: Collection[bytes]) -> list[bytes]:
    """The names of h= in their order; none for a head that can't be signed."""
    counts: dict[bytes, int] = {}
    for name, _, _ in fields.fields:
        counts[name] = counts.get(name, 0) + 1
    if b"from" not in counts:
        return []  # RFC 6376 section 5.4: From is always signed
    names: list[bytes] = []
    for name in _SEALED:
        names += [name] * (counts.get(name, 0) + 1)
    for name in _SEALED_WHERE_PRESENT:
        if name in counts:
            names += [name] * (counts[name] + 1)
    for name in _WHERE_PRESENT:
        names += [name] * counts.get(name, 0)
    if leave_out:
        names = [name for name in names if name not in leave_out]
    return names if len(names) <= _MOST_FIELDS else []


def _canonical_fields(fields: HeadFields, names: Sequence[bytes]) -> bytes:
    """The fields that `names` stand for, the lowest of a name first (RFC 6376 section 5.4.2); one too many is empty."""
    places: dict[bytes, list[tuple[int, int]]] = {name: [] for name in names}
    for name, start, end in fields.fields:
        if name in places:
            places[name].append((start, end))
    found: list[bytes] = []
    for name in names:
        if places[name]:
            start, end = places[name].pop()
            found.append(_relaxed(name, fields.head[fields.head.index(b":", start) + 1 : end]) + b"\r\n")
    return b"".join(found)


def _relaxed(name: bytes, value: bytes) -> bytes:
    """The relaxed form of a field, without its line end (RFC 6376 section 3.4.2); `name` in small letters."""
    return name + b":" + _WHITE_SPACE.sub(b" ", _LINE_END.sub(b"", value)).strip(b" ")


def _signature(key: SigningKey, names: Sequence[bytes], signed: bytes, body_hash: bytes, moment: datetime) -> bytes:
    tags = (
        f" v=1; a={key.algorithm}; c=relaxed/relaxed; d={key.domain};\r\n"
        f"\ts={key.selector}; t={int(moment.timestamp())};\r\n"
        f"\tbh={base64.b64encode(body_hash).decode('ascii')};\r\n"
        f"\th={_folded_names(names)};\r\n"
        f"\tb="
    ).encode("ascii")
    data = signed + _relaxed(b"dkim-signature", tags)
    if isinstance(key.private, RSAPrivateKey):
        octets = key.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
    else:
        octets = key.private.sign(hashlib.sha256(data).digest())  # RFC 8463 section 3: the hash is what is signed
    encoded = base64.b64encode(octets)
    lines = [encoded[at : at + _LINE - 4] for at in range(0, len(encoded), _LINE - 4)]
    return b"DKIM-Signature:" + tags + b"\r\n\t".join(lines) + b"\r\n"


def _folded_names(names: Sequence[bytes]) -> str:
    """`names` joined by colons, folded behind them."""
    lines = [""]
    for name in names:
        word = name.decode("ascii") + ":"
        if len(lines[-1]) + len(word) > _LINE - 4:
            lines.append("")
        lines[-1] += word
    return "\r\n\t ".join(lines).removesuffix(":")
