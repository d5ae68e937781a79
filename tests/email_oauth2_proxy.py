"""What email-oauth2-proxy (PyPI: emailproxy) writes into its configuration, sealed by its own code."""

from __future__ import annotations

import configparser
import functools
import warnings
from typing import Any
from unittest import mock


@functools.cache
def _program() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import emailproxy
    return emailproxy


def sealed(name: str, password: str, *, iterations: int | None = 1000, is_old: bool = False, **secrets: str) -> str:
    """The lines of the section [name] where these secrets lie, sealed with so many iterations (None: the program's own
    number, which takes a second); `is_old`: as before October 2023, when that number was not written down."""
    program = _program()
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict({name: {}, program.APP_SHORT_NAME: {}})
    newest, legacy = program.Cryptographer.ITERATIONS, program.Cryptographer.LEGACY_ITERATIONS
    if is_old:
        newest = legacy
    elif iterations is not None:
        newest = legacy = iterations
    with (
        mock.patch.object(program.AppConfig, "get_global", lambda name, fallback: fallback),
        mock.patch.multiple(program.Cryptographer, ITERATIONS=newest, LEGACY_ITERATIONS=legacy),
    ):
        cryptographer = program.Cryptographer(parser, name, password)
    options = {"token_salt": cryptographer.salt} | {key: cryptographer.encrypt(value) for key, value in secrets.items()}
    if not is_old:
        options["token_iterations"] = str(cryptographer.iterations)
    return "".join(f"{key} = {value}\n" for key, value in options.items())
