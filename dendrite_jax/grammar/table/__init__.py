"""Automata over tokens: built on the host, run on the device."""
