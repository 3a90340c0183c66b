"""Matrix factorisation by alternating least squares, and the exact top-n items of every user."""
