"""What email-oauth2-proxy (PyPI: emailproxy) writes into its configuration, sealed by its own code."""

from __future__ import annotations

import configparser
import contextlib
import functools
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock


@functools.cache
def _program() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import emailproxy
    return emailproxy


@contextlib.contextmanager
def _on(file: Path) -> Iterator[Any]:
    """The program on this configuration, logging nowhere and sealing quickly."""
    program = _program()
    with (
        mock.patch.multiple(program, CONFIG_FILE_PATH=str(file), CACHE_STORE=str(file), Log=mock.MagicMock()),
        mock.patch.object(program.Cryptographer, "ITERATIONS", 1000),
    ):
        program.AppConfig.unload()
        yield program
        program.AppConfig.unload()


def after_a_consent(file: Path, name: str, password: str) -> str:
    """What the program has made of its configuration when a mail program has logged in with `password` and the person
    whom it asked has consented."""
    found: list[tuple[bool, str]] = []
    with _on(file) as program, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        login = threading.Thread(
            target=lambda: found.append(program.OAuth2Helper.get_oauth2_credentials(name, password)), daemon=True
        )
        login.start()
        asked = program.REQUEST_QUEUE.get(timeout=60)
        program.RESPONSE_QUEUE.put(asked | {"response_url": f"{asked['redirect_uri']}?code=c1"})
        login.join()
    assert found[0][0], found[0][1]
    return file.read_text()


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
