"""Who calls and what they may do: tokens, roles, and the limit on wrong credentials."""
