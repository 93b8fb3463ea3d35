"""Suites are data: one TOML file each, read through importlib.resources."""
