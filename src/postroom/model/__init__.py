"""The mail room's nouns: frozen values without behaviour that needs a clock, a socket or a database."""
