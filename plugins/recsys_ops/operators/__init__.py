"""The operators: a day and the settings in, one call into the rooms below, numbers out."""
