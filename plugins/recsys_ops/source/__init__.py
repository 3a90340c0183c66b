"""The production database: the delta of events and the catalogue."""
