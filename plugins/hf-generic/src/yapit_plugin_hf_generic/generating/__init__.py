"""Text: what a prompt becomes, the token loop, and what its tokens mean."""
