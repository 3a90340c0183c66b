"""Better settings: which to try next, and whether the best trial beats those in use."""
