"""What works on the jobs of a collection: servers of this machine, or of a Ray cluster."""
