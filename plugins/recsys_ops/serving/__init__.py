"""What the shop reads: recommendation lists in Redis, and the lookup service over HTTP."""
