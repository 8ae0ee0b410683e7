"""``svf demo``: the whole way, of one task, on data that it makes itself."""
