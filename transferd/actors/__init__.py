"""The order of commands: one actor with one bounded mailbox per wallet."""
