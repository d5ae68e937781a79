"""What `make` runs beside Postroom itself."""
