"""Questions about rules, hosts and intervals that the paper leaves open."""
