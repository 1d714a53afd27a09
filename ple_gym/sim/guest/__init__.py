"""What happens inside the guests: their programs, their locks, and what their vCPUs wait for."""
