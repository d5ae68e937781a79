"""The suppression list as people change it: what they write is read strictly, and kept in one form."""
