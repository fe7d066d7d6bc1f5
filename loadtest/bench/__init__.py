"""Side-by-side benchmark: the service and a row-locking handler with the same duties."""
