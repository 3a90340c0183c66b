"""The operators: each gets a day and the settings, makes one call below, and returns figures."""
