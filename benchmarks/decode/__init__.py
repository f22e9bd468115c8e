"""Decode speed: of branches apart, and of branches that share a prompt."""
