"""Declared knowledge about applications, one TOML file each."""
