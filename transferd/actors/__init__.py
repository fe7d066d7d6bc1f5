"""Who goes next: one actor and one bounded mailbox per wallet."""
