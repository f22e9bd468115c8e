"""What a fork costs."""
