"""The log and the webhooks, to which events are delivered."""
