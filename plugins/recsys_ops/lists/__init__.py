"""Recommendation lists: what goes into them and how they are built."""
