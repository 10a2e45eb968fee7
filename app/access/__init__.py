"""Who may do what: tokens, links, and what they grant. No HTTP."""
