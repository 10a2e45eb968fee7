"""Support code that tests share: servers, databases, proxies, documents."""
