"""Postroom: the outgoing-mail room of an organisation."""

__version__ = "0.1.0"
