"""`postroom send` with addresses beyond ASCII: the message is marked as needing SMTPUTF8 only if its header does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import run_postroom


@pytest.mark.parametrize(
    ("sender", "needed"), [("Jörg <jörg@shop.example>", True), ("Jörg <joerg@bücher.example>", False)]
)
def test_smtputf8_is_declared_where_the_header_needs_it(tmp_path: Path, sender: str, needed: bool) -> None:
    environment = os.environ | {"POSTROOM_DATA": str(tmp_path / "data")}
    sent = run_postroom(
        environment, "send", "--json", "--from", sender, "--to", "ann@example.net", "--subject", "Grüße", "--text", "ü"
    )
    message = json.loads(run_postroom(environment, "queue", "show", json.loads(sent.stdout)["id"], "--json").stdout)
    assert message["smtputf8"] is needed
