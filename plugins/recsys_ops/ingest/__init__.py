"""One day through the cleaning steps into the history."""
