"""What files of a machine tell of it: measured distributions and rates, a scenario made of them, and how it fits."""
