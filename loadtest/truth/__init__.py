"""What has to be true: checks of answers, the history of a run, its audit and its verdict."""
