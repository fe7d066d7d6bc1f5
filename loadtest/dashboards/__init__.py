"""What a load test shows of both sides: the service's own figures, and those of its clients."""
