"""OAuth 2: tokens for accounts, and the consents of people that they rest on (SPEC section 2.2, docs/oauth.md)."""
