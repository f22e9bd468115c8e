"""What a grammar costs to compile and to run."""
