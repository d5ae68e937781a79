"""OpenDKIM as the judge of signatures, with the DNS records of a test and no others."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_VERDICT = re.compile(r"dkim=(\w+)[^;]*?header\.a=(\S+)[^;]*?header\.s=(\S+)")


@dataclass(frozen=True)
class OpenDkim:
    """The program, and a folder for its files."""

    program: Path
    folder: Path

    def verdicts(self, message: bytes, records: Mapping[str, str]) -> dict[str, str]:
        """What it says of each signature, by selector: `pass rsa-sha256`, `fail ed25519-sha256`, ..."""
        (self.folder / "message.eml").write_bytes(message)
        (self.folder / "records").write_text("".join(f"{name} {value}\n" for name, value in records.items()))
        conf = self.folder / "opendkim.conf"
        conf.write_text(f"Mode v\nSyslog no\nTestPublicKeys {self.folder / 'records'}\n")
        command = [str(self.program), "-v", "-v", "-x", str(conf), "-t", str(self.folder / "message.eml")]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        found = {selector: f"{verdict} {algorithm}" for verdict, algorithm, selector in _VERDICT.findall(said.stdout)}
        assert found, said
        return found
