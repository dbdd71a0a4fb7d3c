"""What Prometheus gets from the processes of a run."""
