"""What an agent sees of a decision."""
