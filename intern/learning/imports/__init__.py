"""Files of examples in any layout, to examples: the layout is guessed, a person confirms it, every row is checked."""
