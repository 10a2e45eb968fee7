"""Access control: tokens, links, and the rights they grant. No HTTP."""
