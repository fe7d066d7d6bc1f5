"""`make chaos`: faults under load, and a checker of what was asked and what came of it."""
