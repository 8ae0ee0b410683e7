"""Energy accounting: what each operation of a network does, and what that costs."""
