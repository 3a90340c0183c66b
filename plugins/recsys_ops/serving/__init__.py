"""What the shop reads: recommendations in Redis, published whole or not at all."""
