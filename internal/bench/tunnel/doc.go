package tunnel
