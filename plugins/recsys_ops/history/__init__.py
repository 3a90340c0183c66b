"""The history: a Delta table of clean events, and its encoded days."""
