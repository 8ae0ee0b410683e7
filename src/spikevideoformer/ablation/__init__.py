"""Questions of the paper, asked of one's own data: what each ingredient of a network is worth."""
