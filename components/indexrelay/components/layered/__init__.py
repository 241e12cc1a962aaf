"""What every kind shares that builds incrementally: base, delta, tombstones, and what follows."""
