"""The bookkeeping of Monte Carlo tree search, beside mctx."""
