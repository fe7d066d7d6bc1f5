"""The group commit: commands of many wallets in one transaction."""
