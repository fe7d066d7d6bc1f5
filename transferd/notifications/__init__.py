"""Notifications: the relay from the outbox to the broker, the notifier, and the sinks."""
