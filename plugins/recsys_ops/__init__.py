"""recsys-ops: a recommender that retrains itself every night and never serves a bad model."""
