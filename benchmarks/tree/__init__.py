"""Search trees: rounds and complete trees."""
