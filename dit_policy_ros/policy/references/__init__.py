"""Reference directories: official weights, inputs and outputs, and what it takes to run their cases here."""
