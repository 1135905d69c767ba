"""What a teacher model is asked, what its answers must prove, and where they are kept until a run ends."""
