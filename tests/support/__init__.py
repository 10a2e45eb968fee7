"""What tests share: servers, databases, proxies, documents."""
