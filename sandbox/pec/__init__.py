"""The alternate PEC: its containers, its isolation, its watch."""
