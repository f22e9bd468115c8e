"""Success at the Game of 24 by every search."""
