"""How each database searches words: where they stand is its own, what they are is the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Protocol

#: As FTS5's tokenizer unicode61 sees words: letters and digits.
_WORD = re.compile(r"[^\W_]+")


_ROWS = "SELECT rowid, message_id FROM subject_words WHERE "


class FullText(Protocol):
    """The statements that differ, and what is put for a subject and for what is looked for.

    A word that ends with `*` is the beginning of one; one with marks in it is several that stand together.
    """

    creates: tuple[str, ...]
    #: Where a value stands for what `stored` and `wanted` give.
    place: str
    match: str
    #: Before `match` and after it: the newest rows before a row, for words that many have, and for words that few have.
    of_many: tuple[str, str]
    of_few: tuple[str, str]
    #: How many of the newest rows before a row have the words; empty: `of_many` is for all words.
    newest: tuple[str, str]

    def stored(self, subject: str) -> str:
        """A subject as it is put into the table."""

    def wanted(self, words: Sequence[str]) -> str:
        """What is looked for."""


class Fts5:
    """SQLite's; it finds the words itself."""

    creates: tuple[str, ...] = (
        "CREATE VIRTUAL TABLE subject_words USING fts5(subject, message_id UNINDEXED, columnsize=0,"
        ' tokenize="unicode61 remove_diacritics 2")',
    )
    place = "?"
    match = "subject_words MATCH ?"
    of_many: tuple[str, str] = (_ROWS, " AND rowid < ? ORDER BY rowid DESC LIMIT ?")
    of_few: tuple[str, str] = of_many
    newest: tuple[str, str] = ("", "")

    def stored(self, subject: str) -> str:
        """See `FullText.stored`."""
        return subject

    def wanted(self, words: Sequence[str]) -> str:
        """See `FullText.wanted`."""
        return " ".join(
            f'"{word.rstrip("*").replace(chr(34), "")}"{"*" if word.endswith("*") else ""}' for word in words
        )


class TextSearch:
    """PostgreSQL's; words are found here, so that they are the same as FTS5's whatever the server is configured for."""

    creates: tuple[str, ...] = (
        "CREATE TABLE subject_words (rowid BIGINT PRIMARY KEY, message_id BYTEA NOT NULL, subject TSVECTOR NOT NULL)",
        "CREATE INDEX subject_words_subject ON subject_words USING gin (subject)",
    )
    place = "CAST(? AS tsvector)"
    match = "subject @@ CAST(? AS tsquery)"
    of_many: tuple[str, str] = (_ROWS, " AND rowid < ? ORDER BY rowid DESC LIMIT ?")
    # No index is in this order. Else the planner, which does not know how rare a word is, walks through all rows.
    of_few: tuple[str, str] = (_ROWS, " AND rowid < ? ORDER BY rowid + 0 DESC LIMIT ?")
    newest: tuple[str, str] = (
        "SELECT count(*) FROM"
        " (SELECT subject FROM subject_words WHERE rowid < ? ORDER BY rowid DESC LIMIT 2000) AS newest WHERE ",
        "",
    )

    def stored(self, subject: str) -> str:
        """See `FullText.stored`."""
        return " ".join(f"'{word}':{place}" for place, word in enumerate(_words(subject), 1))

    def wanted(self, words: Sequence[str]) -> str:
        """See `FullText.wanted`."""
        return " & ".join(filter(None, map(self._phrase, words)))

    @staticmethod
    def _phrase(word: str) -> str:
        parts = [f"'{part}'" for part in _words(word)]
        if parts and word.endswith("*"):
            parts[-1] += ":*"
        return f"({' <-> '.join(parts)})" if parts else ""


def _words(text: str) -> list[str]:
    plain = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return _WORD.findall(plain.lower())
