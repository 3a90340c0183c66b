"""Better settings: which to try next, and whether the best of them is better than those in use."""
