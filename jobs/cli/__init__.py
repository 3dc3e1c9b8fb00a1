"""The commands: one module a group, the flags that they share, and what they print."""
