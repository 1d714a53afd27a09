"""Learned policies: the trainings, the leaderboard, and what the best policy does."""
