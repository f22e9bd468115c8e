"""The game itself: rules, solver, vocabulary, and the rules as arrays over tokens."""
