"""The HTTP edge: the OpenAI API and what its clients expect around it."""
