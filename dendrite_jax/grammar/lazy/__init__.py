"""Grammars whose edges the host adds when a loop asks for them, by llguidance."""
