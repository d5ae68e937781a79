"""The client's side of SCRAM-SHA-1 (RFC 5802) and SCRAM-SHA-256 (RFC 7677), without channel binding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import SaslError

SCRAM_SHA_256 = "SCRAM-SHA-256"
SCRAM_SHA_1 = "SCRAM-SHA-1"


class ScramClient:
    """SCRAM: each side proves that it knows the password, and neither says it.

    `nonce` is random and new for each login: printable ASCII without commas.
    """

    sends_clear_password = False
    takes_long = True  # the server says how many rounds its hash has

    def __init__(self, mechanism: str, login: str, password: str, nonce: str) -> None:
        import scramp  # here: heavy, and not needed where no relay offers it

        self.mechanism = mechanism
        self.secrets: tuple[str, ...] = ()
        self._failed = scramp.ScramException
        self._client: Any = self._asked(lambda: scramp.ScramClient([mechanism], login, password, c_nonce=nonce))
        self._steps = [self._prove, self._check]

    def initial_response(self) -> bytes | None:
        """The user name and the nonce."""
        first: str = self._client.get_client_first()
        return first.encode()

    def respond(self, challenge: bytes) -> bytes:
        """The proof, then nothing more, once the server has proved itself too."""
        if not self._steps:
            raise SaslError(f"the server asks for more than {self.mechanism} has")
        try:
            message = challenge.decode("utf-8")
        except UnicodeDecodeError:
            raise SaslError("the server's message is not UTF-8") from None
        return self._steps.pop(0)(message)

    def accepted(self) -> None:
        """The server must have proved that it knows the password."""
        if self._steps:
            raise SaslError("the server took the login without proof that it knows the password (no signature)")

    def _prove(self, message: str) -> bytes:
        self._asked(lambda: self._client.set_server_first(message))
        final: str = self._asked(self._client.get_client_final)
        self.secrets = (final.rpartition(",p=")[2],)
        return final.encode()

    def _check(self, message: str) -> bytes:
        try:
            self._asked(lambda: self._client.set_server_final(message))
        except SaslError:
            self._steps.append(self._check)  # what did not prove itself has not, whatever it says next
            raise
        return b""

    def _asked(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except self._failed as error:
            detail = error.server_error.value if error.server_error is not None else ""
            said = str(error.args[0]).rstrip(".")
            if said == "The server returned an error":
                raise SaslError(f"the server refused the login: {detail}") from None
            raise SaslError(f"{self.mechanism}: {said}") from None
