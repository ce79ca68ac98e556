"""What tests share: working folders, fake servers and builders, each defined once."""
