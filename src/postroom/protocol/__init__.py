"""Dialogues as state machines: bytes in, events out, and nothing that waits, reads a clock or opens a socket."""
