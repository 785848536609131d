"""The commands of `vil`: each parses, calls one function of the library, and reports."""
