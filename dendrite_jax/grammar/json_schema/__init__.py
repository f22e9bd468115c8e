"""JSON schemas to byte automata."""
