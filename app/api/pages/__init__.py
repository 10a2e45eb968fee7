"""The web pages for people: HTML, and the data of their charts."""
