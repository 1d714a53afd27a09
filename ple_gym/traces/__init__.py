"""What happened: events of a run, the window to look at, and pictures of it."""
