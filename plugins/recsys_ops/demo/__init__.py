"""The demo shop: a production database with known tastes, robots, staff and dirt."""
