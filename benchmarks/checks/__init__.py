"""What the checks of compiled loops run, and what they are held to."""
