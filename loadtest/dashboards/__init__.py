"""The metrics of a load test: of the service and of its clients."""
