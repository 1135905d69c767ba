"""Adapter files: checked, converted, kept by content, and put in service."""
