"""The rules of money: pure values and functions, standard library only."""
