"""The launchers: each starts, follows and cancels training jobs at one place."""
