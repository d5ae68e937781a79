"""Message formats (RFC 5322, RFC 2045 and following): bytes in, bytes out."""
