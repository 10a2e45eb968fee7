"""Differential tests: stock torch reads the same from each accepted file and from the file that Stateroom makes."""
