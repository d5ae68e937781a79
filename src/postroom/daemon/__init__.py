"""The process `postroom serve`: starts, supervises and stops everything (DESIGN section 10)."""
