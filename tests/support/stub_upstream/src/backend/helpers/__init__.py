# A package, as upstream's is.
