"""Where events are delivered to: the log and webhooks."""
