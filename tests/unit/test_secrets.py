"""Keys, seals, and keyed hashes of generated passwords."""

from __future__ import annotations

import hashlib
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from postroom.config import Settings
from postroom.errors import InvalidInput
from postroom.secrets import Keyring, generate_password, is_chosen


@pytest.fixture(autouse=True)
def no_keys_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests must not count."""
    monkeypatch.delenv("POSTROOM_KEYS", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def _load(data: Path) -> Keyring:
    return Keyring.load(data, Settings.load(data))


def test_keys_are_made_once(tmp_path: Path) -> None:
    sealed = _load(tmp_path).seal(b"marked")
    assert b"marked" not in sealed
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]
    assert _load(tmp_path).open(sealed) == b"marked"


def test_missing_keys_of_a_used_folder_are_not_made_anew(tmp_path: Path) -> None:
    (tmp_path / "postroom.db").write_bytes(b"")
    with pytest.raises(InvalidInput, match="put it back"):
        _load(tmp_path)
    assert not (tmp_path / "keys").exists()


def test_keys_open_to_others_are_refused(tmp_path: Path) -> None:
    _load(tmp_path)
    (tmp_path / "keys").chmod(0o640)
    with pytest.raises(InvalidInput, match="chmod 600"):
        _load(tmp_path)


@pytest.mark.parametrize("content", ["", "# nothing\n", "short\n"])
def test_a_file_without_a_key(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys").write_text(content)
    (tmp_path / "keys").chmod(0o600)
    with pytest.raises(InvalidInput, match="key"):
        _load(tmp_path)


def test_keys_from_the_environment_and_the_credentials_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "postroom-keys").write_text(first + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    sealed = _load(tmp_path).seal(b"x")
    assert Keyring([first]).open(sealed) == b"x"
    monkeypatch.setenv("POSTROOM_KEYS", f"{second}, {first}")
    both = _load(tmp_path)
    assert both.open(sealed) == b"x"
    assert Keyring([second]).open(both.seal(b"y")) == b"y"
    assert not (tmp_path / "keys").exists()


def test_a_seal_opens_with_its_key_alone() -> None:
    sealed = Keyring([Fernet.generate_key()]).seal(b"x")
    with pytest.raises(InvalidInput, match="put back the keys"):
        Keyring([Fernet.generate_key()]).open(sealed)


def test_credentials_are_keyed_and_survive_a_new_key() -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    before, after, other = Keyring([old]), Keyring([new, old]), Keyring([new])
    credential = before.hash_credential("right")
    assert b"right" not in credential
    assert before.verify_credential("right", credential)
    assert after.verify_credential("right", credential)
    assert not before.verify_credential("wrong", credential)
    assert not other.verify_credential("right", credential)
    assert not before.verify_credential("right", b"")
    assert after.hash_credential("right") != credential


def test_passwords_that_people_choose_are_hashed_slowly_and_with_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    before, after, other = Keyring([old]), Keyring([new, old]), Keyring([new])
    credential = before.hash_chosen("right one")
    assert before.hash_chosen("right one") != credential
    assert (is_chosen(credential), is_chosen(before.hash_credential("right one"))) == (True, False)
    assert before.verify_credential("right one", credential)
    assert after.verify_credential("right one", credential)
    assert after.knows(credential)
    assert not before.verify_credential("wrong one", credential)
    assert not other.verify_credential("right one", credential)
    monkeypatch.delattr(hashlib, "scrypt")
    assert before.verify_credential("right one", credential), "it is known again at once"


def test_a_credential_under_no_key_of_ours_never_matches() -> None:
    forged = b"none" + hashlib.blake2b(b"right", key=bytes(32), digest_size=32).digest()
    assert not Keyring([Fernet.generate_key()]).verify_credential("right", forged)


def test_generated_passwords_are_long_unlike_and_unambiguous() -> None:
    passwords = {generate_password() for _ in range(200)}
    assert len(passwords) == 200
    assert {len(password) for password in passwords} == {32}
    assert not set("".join(passwords)) & set("0O1lIio")
    assert "".join(passwords).isalnum()


def test_a_keyring_does_not_show_its_keys() -> None:
    key = Fernet.generate_key()
    assert key.decode() not in repr(vars(Keyring([key]))) + repr(Keyring([key]))


def test_rotations_at_the_same_time_lose_no_key(tmp_path: Path) -> None:
    keys = _load(tmp_path)
    together = threading.Barrier(8)

    def rotate() -> bytes:
        together.wait()
        assert keys.rotate()
        return keys.seal(b"marked")

    with ThreadPoolExecutor(8) as threads:
        sealed = [one.result() for one in [threads.submit(rotate) for _ in range(8)]]
    assert len((tmp_path / "keys").read_text().split()) == 9
    assert {_load(tmp_path).open(one) for one in sealed} == {b"marked"}


def test_whose_key_is_there_is_known() -> None:
    keys = Keyring([Fernet.generate_key()])
    assert keys.knows(keys.hash_credential("right"))
    assert not Keyring([Fernet.generate_key()]).knows(keys.hash_credential("right"))
