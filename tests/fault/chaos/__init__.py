"""`make chaos`: faults under load, and a check of all answers and of the ledger."""
