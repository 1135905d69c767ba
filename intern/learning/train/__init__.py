"""Training in a process of its own: `python -m intern.learning.train FOLDER` reads a job and writes an adapter."""
