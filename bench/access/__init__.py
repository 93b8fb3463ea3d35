"""Builds the views of attackers and defenders. No other package gives them data."""
