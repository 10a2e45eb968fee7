"""News of events: for clients that wait, and for the record of refusals."""
