"""Pure decisions: values in, a decision out. Time and random numbers are arguments."""
