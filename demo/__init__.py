"""The main job on real input: messages of every sort through every door, a relay, and a table of what arrived."""
