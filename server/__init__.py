"""The edges of LLaMA Intern: thin HTTP handlers that translate a request, call `intern`, and translate back."""
