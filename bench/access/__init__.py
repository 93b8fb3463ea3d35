"""Builds the views of attacker and defender. No other package grants access to data."""
