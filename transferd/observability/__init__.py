"""Facts about the work of the service, and the hooks that make metrics, logs and spans of them."""
