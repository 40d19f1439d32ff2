"""How a run looks to people: the terminal and the pictures."""
