"""Every transcript, on its machine under any cutting of the octets, and over a socket."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol import client_play, server_play
from tests.protocol.transcript_file import Transcript, transcripts

SERVER, CLIENT = transcripts("server"), transcripts("client")
CERTIFICATES = trustme.CA()

servers = pytest.mark.parametrize("transcript", SERVER, ids=lambda transcript: transcript.name)
clients = pytest.mark.parametrize("transcript", CLIENT, ids=lambda transcript: transcript.name)
cut_at = st.lists(st.integers(1, 120), min_size=1, max_size=8)


def whole(octets: bytes) -> list[bytes]:
    return [octets]


def one_by_one(octets: bytes) -> list[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


def cut(octets: bytes, sizes: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    while octets:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(octets[:size])
        octets = octets[size:]
    return pieces


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of a certificate for localhost."""
    folder: Path = tmp_path_factory.mktemp("certificate")
    issued = CERTIFICATES.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}


@pytest.fixture(scope="module")
def trusting() -> ssl.SSLContext:
    """A client's context."""
    context = ssl.create_default_context()
    CERTIFICATES.configure_trust(context)
    return context


@servers
@pytest.mark.parametrize("pieces", [whole, one_by_one])
def test_a_server_transcript_in_memory(transcript: Transcript, pieces: server_play.Cut) -> None:
    server_play.in_memory(transcript, pieces)


@servers
@settings(max_examples=25)  # of each file; there are many
@given(cut_at)
def test_a_server_transcript_in_memory_cut_anywhere(transcript: Transcript, sizes: list[int]) -> None:
    server_play.in_memory(transcript, lambda octets: cut(octets, sizes))


@servers
async def test_a_server_transcript_over_a_socket(
    transcript: Transcript, certificate: dict[str, str], trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = server_play.Options(transcript).client
    monkeypatch.setattr("postroom.submission.session.plain_address", lambda _: client)
    await server_play.over_a_socket(transcript, certificate, trusting)


@clients
@pytest.mark.parametrize("pieces", [whole, one_by_one])
def test_a_client_transcript_in_memory(transcript: Transcript, pieces: server_play.Cut) -> None:
    client_play.in_memory(transcript, pieces)


@clients
@settings(max_examples=25)  # of each file; there are many
@given(cut_at)
def test_a_client_transcript_in_memory_cut_anywhere(transcript: Transcript, sizes: list[int]) -> None:
    client_play.in_memory(transcript, lambda octets: cut(octets, sizes))


@clients
async def test_a_client_transcript_over_a_socket(transcript: Transcript, certificate: dict[str, str]) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate["certificate"], certificate["key"])
    await client_play.over_a_socket(transcript, server, CERTIFICATES.cert_pem.bytes())


def test_every_transcript_says_what_it_shows() -> None:
    assert [one.name for one in SERVER + CLIENT if not one.title] == []
    assert len(SERVER) > 40
    assert len(CLIENT) > 30
