"""Models and oracles that tests and examples compute by hand."""
