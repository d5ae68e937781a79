"""The AUTH exchange as a client leads it (RFC 4954); the mechanisms are those of `protocol.sasl`."""

from __future__ import annotations

from ...model.reply import Reply
from ..sasl import ClientStepper, SaslError, from_base64, to_base64

#: RFC 4954 section 4 with RFC 5321 section 4.5.3.1.4: an AUTH that would be longer goes without its initial response.
COMMAND_BYTES = 512

#: RFC 4954 section 4: the exchange is cancelled; the server says 501.
CANCEL = b"*"


class ClientLogin:
    """One exchange: `command` begins it, and `answer` is what to say to each 334.

    `fault` says why it was cancelled, or what was wrong with the server's yes; "" while nothing was.
    """

    def __init__(self, stepper: ClientStepper) -> None:
        self.stepper = stepper
        self.fault = ""
        self._withheld: bytes | None = None

    def command(self) -> bytes:
        """The AUTH command, with the initial response where there is one and it fits."""
        bare = b"AUTH " + self.stepper.mechanism.encode("ascii")
        initial = self.stepper.initial_response()
        if initial is None:
            return bare
        encoded = to_base64(initial) or b"="
        line = bare + b" " + encoded
        if len(line) + 2 <= COMMAND_BYTES:
            return line
        self._withheld = encoded
        return bare

    def answer(self, challenge: Reply) -> bytes:
        """The line that answers `challenge`; it cancels where the mechanism has no answer."""
        withheld, self._withheld = self._withheld, None
        try:
            asked = from_base64(challenge.lines[0].encode())
        except SaslError as error:
            self.fault = f"what the relay asks is {error}"
            return CANCEL
        try:
            return withheld if withheld is not None else to_base64(self.stepper.respond(asked))
        except SaslError as error:
            self.fault = str(error)
            return CANCEL

    def accept(self) -> None:
        """The server took the login: `fault` is set where that must not be believed."""
        try:
            self.stepper.accepted()
        except SaslError as error:
            self.fault = self.fault or str(error)
