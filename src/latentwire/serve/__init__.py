"""The server: latents and text in, answers out, several requests at a time."""
