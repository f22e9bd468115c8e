"""Game of 24 (any target from 1 to 100) with a small task-trained model."""
