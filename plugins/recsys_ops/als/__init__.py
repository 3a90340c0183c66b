"""Matrix factorisation by alternating least squares, and the exact best items for every user."""
