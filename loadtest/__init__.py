"""Load tests and benchmarks of the service."""
