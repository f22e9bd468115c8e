"""Byte automata: regular expressions to NFAs, DFAs, their algebra and minimisation; host side."""
