"""How good a model is, against the champion and against popularity, and whether it may go live."""
